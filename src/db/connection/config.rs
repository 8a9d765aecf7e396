//! Which database, and how connections to it are used.

use std::{fmt, path::PathBuf, time::Duration};

use crate::db::Pooler;

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Config {
    /// A file, made if it is not there.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A server.
    Postgres(Postgres),
}

/// A PostgreSQL server and how connections to it are used.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// `postgres://user:password@host:port/name`.
    pub url: String,
    /// The same database without a pooler, for what needs a session: notifications, presence and migrations.
    pub direct_url: Option<String>,
    /// Whether a pooler in transaction mode stands before the server.
    pub pooler: Pooler,
    /// Most connections of this process for statements.
    pub max_connections: u32,
    /// Connections beyond the most that were in use at once within this time are closed.
    pub idle_timeout: Duration,
    /// The server ends a statement that takes longer; zero leaves it to the server's own setting.
    pub statement_timeout: Duration,
    /// The longest wait for a connection, a new one or one that is in use.
    pub connect_timeout: Duration,
    /// The server ends a transaction that says nothing for this long: its process is frozen or cut off, and it would keep its
    /// locks. No transaction of ours ever pauses.
    pub transaction_idle_timeout: Duration,
    /// How long the first connection is waited for while the server has none free; without end if absent.
    pub patience: Option<Duration>,
}

impl Postgres {
    /// A server at `url` with the settings' defaults.
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
            patience: Some(Duration::from_secs(10)),
        }
    }

    /// What a session sets, and each transaction behind a pooler: names and values.
    pub(super) fn timeouts(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("idle_in_transaction_session_timeout", self.transaction_idle_timeout),
            ("statement_timeout", self.statement_timeout),
        ];
        let set = all.into_iter().filter(|(_, timeout)| !timeout.is_zero());
        set.map(|(name, timeout)| (name, timeout.as_millis().to_string())).collect()
    }
}

/// The URLs hold passwords and are not shown.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => f.debug_struct("Sqlite").field("path", path).finish(),
            Self::Postgres(postgres) => postgres.fmt(f),
        }
    }
}

/// The URLs hold passwords and are not shown.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("pooler", &self.pooler)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}
