//! Configuration of the database and its connections.

use std::{fmt, path::PathBuf, time::Duration};

use crate::db::Pooler;

/// The database to use.
#[derive(Clone, PartialEq, Eq)]
pub enum Config {
    /// A SQLite file, created if it does not exist.
    Sqlite {
        /// Path of the file.
        path: PathBuf,
    },
    /// A PostgreSQL server.
    Postgres(Postgres),
}

/// A PostgreSQL server and its connection settings.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// `postgres://user:password@host:port/name`.
    pub url: String,
    /// URL without the pooler, for notifications, presence locks and migrations.
    pub direct_url: Option<String>,
    /// Whether a pooler in transaction mode is in use.
    pub pooler: Pooler,
    /// Maximum connections of this process for statements.
    pub max_connections: u32,
    /// Connections beyond the peak use within this time are closed.
    pub idle_timeout: Duration,
    /// Timeout after which the server cancels a statement; zero uses the server's own setting.
    pub statement_timeout: Duration,
    /// Maximum wait for a connection, new or pooled.
    pub connect_timeout: Duration,
    /// Timeout after which the server ends an idle transaction.
    /// Such a transaction belongs to a frozen or disconnected process and would keep its locks: `pm` never pauses in a
    /// transaction.
    pub transaction_idle_timeout: Duration,
    /// Maximum wait for the first connection while the server has none free; unlimited if absent.
    pub max_wait: Option<Duration>,
}

impl Postgres {
    /// Returns the default settings for a server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            direct_url: None,
            pooler: Pooler::Auto,
            max_connections: 16,
            idle_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            transaction_idle_timeout: Duration::from_secs(10),
            max_wait: Some(Duration::from_secs(10)),
        }
    }

    /// Returns the settings of each session, or of each transaction behind a pooler.
    pub(super) fn timeouts(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("idle_in_transaction_session_timeout", self.transaction_idle_timeout),
            ("statement_timeout", self.statement_timeout),
        ];
        let set = all.into_iter().filter(|(_, timeout)| !timeout.is_zero());
        set.map(|(name, timeout)| (name, timeout.as_millis().to_string())).collect()
    }
}

/// Hides the URLs, which contain passwords.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => f.debug_struct("Sqlite").field("path", path).finish(),
            Self::Postgres(postgres) => postgres.fmt(f),
        }
    }
}

/// Hides the URLs, which contain passwords.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("pooler", &self.pooler)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}
