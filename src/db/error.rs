//! What can go wrong with the database, by what the caller does next.

use sea_orm::{DbErr, RuntimeErr, SqlErr};

use crate::code::ErrorCode;

/// A failed statement or connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or is too busy; the same call may go through later.
    #[error("the database does not answer")]
    Unavailable(#[source] DbErr),
    /// A row with this key is there already.
    #[error("a row with this key is there already")]
    Duplicate(#[source] DbErr),
    /// A row that is referred to is not there.
    #[error("a row that is referred to is not there")]
    MissingReference(#[source] DbErr),
    /// The disk is full.
    #[error("the database's disk is full")]
    Full(#[source] DbErr),
    /// A row that this version cannot read.
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
    /// A statement that should have worked.
    #[error("a statement failed")]
    Statement(#[source] DbErr),
}

impl Error {
    /// The code that clients see.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Full(_) => ErrorCode::StorageFull,
            Self::Duplicate(_) => ErrorCode::Conflict,
            Self::MissingReference(_) | Self::Corrupt(_) | Self::Statement(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same call may go through later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => return Self::Duplicate(error),
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => return Self::MissingReference(error),
            _ => {}
        }
        match &error {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Self::Unavailable(error),
            DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner)) => {
                match trouble(inner) {
                    Trouble::Connection => Self::Unavailable(error),
                    Trouble::Full => Self::Full(error),
                    Trouble::Other => Self::Statement(error),
                }
            }
            _ => Self::Statement(error),
        }
    }
}

enum Trouble {
    Connection,
    Full,
    Other,
}

fn trouble(error: &sea_orm::sqlx::Error) -> Trouble {
    use sea_orm::sqlx::Error as Sqlx;
    match error {
        Sqlx::Io(_)
        | Sqlx::Tls(_)
        | Sqlx::PoolTimedOut
        | Sqlx::PoolClosed
        | Sqlx::WorkerCrashed
        | Sqlx::Protocol(_) => Trouble::Connection,
        Sqlx::Database(database) => match database.code().as_deref() {
            // SQLITE_FULL, and PostgreSQL's disk_full.
            Some("13" | "53100") => Trouble::Full,
            // SQLITE_BUSY and SQLITE_LOCKED with their extended forms.
            Some("5" | "6" | "261" | "262" | "517") => Trouble::Connection,
            // PostgreSQL: connection exceptions, too many connections, operator intervention, serialization and deadlock.
            Some(code) if code.len() == 5 && ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) => {
                Trouble::Connection
            }
            _ => Trouble::Other,
        },
        _ => Trouble::Other,
    }
}
