//! Why the parts cannot be put together.

use std::{io, path::PathBuf};

use crate::{auth, blobs, cache, code::ErrorCode, db, domain::InstallationId, fetch, http, queue};

/// Why there is no app.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened or brought up to date.
    #[error("the database cannot be used")]
    Database(#[from] db::Error),
    /// There is no catalogue to work with.
    #[error("there is no catalogue here: {place}")]
    NoCatalogue {
        /// Where it was looked for, and what was found.
        place: String,
    },
    /// The schema is newer than this version can work with.
    #[error("the database's schema needs pm {needs} or newer; this is pm {}", env!("CARGO_PKG_VERSION"))]
    NewSchema {
        /// The oldest version that can.
        needs: String,
    },
    /// The blob store is not the one that the database's blobs were put into.
    #[error(
        "the blob store {store} is not the store of the installation {installation} in the database {database}: {found}"
    )]
    ForeignStore {
        /// The store of the settings.
        store: String,
        /// The database of the settings.
        database: String,
        /// The database's installation.
        installation: InstallationId,
        /// What the store shows instead.
        found: String,
    },
    /// The blob store belongs to the installation that the database is a copy of.
    #[error(
        "the database {database} is a copy of installation {original}, or was moved, and is installation {id} now; the \
         blob store {store} still belongs to {original}"
    )]
    CopiedDatabase {
        /// The store of the settings.
        store: String,
        /// The database of the settings.
        database: String,
        /// The database's installation.
        id: InstallationId,
        /// The installation that it is a copy of.
        original: InstallationId,
    },
    /// The schema is older than this version needs.
    #[error("the database's schema lacks {missing} of {of} steps")]
    OldSchema {
        /// Steps that are missing.
        missing: usize,
        /// Steps there are.
        of: usize,
    },
    /// Another file has taken the place of the SQLite database that this process has open.
    #[error("another file has taken the place of the database {}, and this process still has the old one open", .path.display())]
    ReplacedDatabase {
        /// The path of the two.
        path: PathBuf,
    },
    /// The cache cannot be used.
    #[error("the cache cannot be used")]
    Cache(#[from] cache::Error),
    /// The queue cannot be used.
    #[error("the queue cannot be used")]
    Queue(#[from] queue::Error),
    /// The store for pictures cannot be used.
    #[error("the store for pictures cannot be used")]
    Storage(#[from] blobs::Error),
    /// The downloader cannot be made.
    #[error("the downloader cannot be made")]
    Fetcher(#[from] fetch::Error),
    /// The certificate cannot be used.
    #[error("connections cannot be encrypted")]
    Tls(#[from] http::TlsError),
    /// The issuer of access tokens cannot be asked.
    #[error("access tokens cannot be checked")]
    Auth(#[from] auth::Error),
    /// A setting cannot work.
    #[error("{0}")]
    Setting(String),
    /// The data directory, or a file in it, cannot be made or read.
    #[error("{} cannot be made or read", .path.display())]
    DataDirectory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Database(error) => error.code(),
            Self::Cache(error) => error.code(),
            Self::Queue(error) => error.code(),
            Self::Storage(error) => error.code(),
            Self::NoCatalogue { .. }
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

    /// Whether a component is unreachable, so that the same command may go through later.
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
