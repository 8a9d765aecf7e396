//! Errors of opening and connecting the app's components.

use std::{io, path::PathBuf};

use crate::{auth, blobs, cache, code::ErrorCode, db, domain::InstallationId, fetch, http, queue};

/// Why the app cannot be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened or brought up to date.
    #[error("the database cannot be used")]
    Database(#[from] db::Error),
    /// The catalog does not exist.
    #[error("no catalog found: {place}")]
    NoCatalog {
        /// The location that pm searched, and what it found.
        place: String,
        /// Whether `pm serve` creates it.
        serve_creates: bool,
    },
    /// The schema is newer than this version supports.
    #[error("the database's schema needs pm {needs} or newer; this is pm {}", env!("CARGO_PKG_VERSION"))]
    NewSchema {
        /// The oldest version that supports the schema.
        needs: String,
    },
    /// The blob store is not the store of the database's installation.
    #[error(
        "the blob store {store} is not the store of the installation {installation} in the database {database}: {found}"
    )]
    ForeignStore {
        /// The configured store.
        store: String,
        /// The configured database.
        database: String,
        /// The database's installation.
        installation: InstallationId,
        /// What pm found in the store instead.
        found: String,
    },
    /// The blob store belongs to the installation that the database is a copy of.
    #[error(
        "the database {database} is a copy of installation {original}, or was moved, and is now installation {id}; the \
         blob store {store} still belongs to {original}"
    )]
    CopiedDatabase {
        /// The configured store.
        store: String,
        /// The configured database.
        database: String,
        /// The database's installation.
        id: InstallationId,
        /// The installation that the database was copied from.
        original: InstallationId,
    },
    /// The schema is older than this version needs.
    #[error("the database schema is out of date: {missing} of {of} migrations are pending")]
    OldSchema {
        /// Number of pending migrations.
        missing: usize,
        /// Number of all migrations.
        of: usize,
    },
    /// Another file replaced the SQLite database that this process has open.
    #[error("another file replaced the database {}, but this process still has the old file open", .path.display())]
    ReplacedDatabase {
        /// The path of both files.
        path: PathBuf,
    },
    /// The cache cannot be used.
    #[error("the cache cannot be used")]
    Cache(#[from] cache::Error),
    /// The queue cannot be used.
    #[error("the queue cannot be used")]
    Queue(#[from] queue::Error),
    /// The image store cannot be used.
    #[error("the image store cannot be used")]
    Storage(#[from] blobs::Error),
    /// The downloader cannot be created.
    #[error("the downloader cannot be created")]
    Fetcher(#[from] fetch::Error),
    /// The certificate cannot be used.
    #[error("the TLS certificate or key cannot be used")]
    Tls(#[from] http::TlsError),
    /// The configuration of the token issuer cannot be used.
    #[error("access tokens cannot be checked")]
    Auth(#[from] auth::Error),
    /// A setting is invalid.
    #[error("{0}")]
    Setting(String),
    /// The data directory, or a file in it, cannot be created or read.
    #[error("{} cannot be created or read", .path.display())]
    DataDirectory {
        /// The directory or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Returns the error code of the API.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Database(error) => error.code(),
            Self::Cache(error) => error.code(),
            Self::Queue(error) => error.code(),
            Self::Storage(error) => error.code(),
            Self::NoCatalog { .. }
            | Self::OldSchema { .. }
            | Self::NewSchema { .. }
            | Self::ForeignStore { .. }
            | Self::CopiedDatabase { .. }
            | Self::Setting(_)
            | Self::Tls(_) => ErrorCode::Validation,
            Self::Auth(error) => error.code(),
            Self::ReplacedDatabase { .. } => ErrorCode::Unavailable,
            Self::Fetcher(_) | Self::DataDirectory { .. } => ErrorCode::Internal,
        }
    }

    /// Returns whether a component is unreachable, so that the same command may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => error.is_transient(),
            Self::Cache(error) => error.is_transient(),
            Self::Queue(error) => error.is_transient(),
            Self::Storage(error) => error.is_transient(),
            Self::ReplacedDatabase { .. } => true,
            _ => false,
        }
    }
}
