//! What can go wrong with the database, by what the caller does next.

use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};

use crate::code::ErrorCode;

/// A failed statement or connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or is too busy; the same call may go through later.
    #[error("the database does not answer")]
    Unavailable(#[source] DbErr),
    /// Settings that cannot work, or contradict each other.
    #[error("{0}")]
    Misconfigured(String),
    /// A session of the server held a prepared statement of another connection, or lacked one of this connection.
    #[error("a connection to PostgreSQL lost its session: a pooler in transaction mode seems to stand in between")]
    SessionLost(#[source] DbErr),
    /// A row with this key is there already.
    #[error("a row with this key is there already")]
    Duplicate(#[source] DbErr),
    /// A row that is referred to is not there.
    #[error("a row that is referred to is not there")]
    MissingReference(#[source] DbErr),
    /// The disk is full.
    #[error("the database's disk is full")]
    Full(#[source] DbErr),
    /// A newer version has changed the schema by steps that this version does not know.
    #[error("pm {} does not know these steps of the database's schema: {}", env!("CARGO_PKG_VERSION"), .0.join(", "))]
    NewerSchema(Vec<String>),
    /// A row that this version cannot read.
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
    /// A statement that should have worked.
    #[error("a statement failed")]
    Statement(#[source] DbErr),
}

impl Error {
    /// The database did not answer within `limit`.
    pub(crate) fn timed_out(limit: std::time::Duration) -> Self {
        Self::Unavailable(DbErr::Custom(format!("no answer within {limit:?}")))
    }

    /// The code that clients see.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Full(_) => ErrorCode::StorageFull,
            Self::Duplicate(_) => ErrorCode::Conflict,
            Self::NewerSchema(_) | Self::Misconfigured(_) => ErrorCode::Validation,
            Self::SessionLost(_) | Self::MissingReference(_) | Self::Corrupt(_) | Self::Statement(_) => {
                ErrorCode::Internal
            }
        }
    }

    /// A statement that always has a row, such as a count, had none: that is no zero.
    pub(super) fn no_row() -> Self {
        Self::Unavailable(DbErr::RecordNotFound("a statement that always has a row had none".into()))
    }

    /// Whether the server, or a pooler before it, had no connection free.
    pub fn lacks_connections(&self) -> bool {
        let Self::Unavailable(error) = self else { return false };
        sqlx_error(error).is_some_and(is_full)
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
        if is_lost_session(&error) {
            return Self::SessionLost(error);
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

fn trouble(error: &sqlx::Error) -> Trouble {
    use sqlx::Error as Sqlx;
    match error {
        Sqlx::Io(_)
        | Sqlx::Tls(_)
        | Sqlx::PoolTimedOut
        | Sqlx::PoolClosed
        | Sqlx::WorkerCrashed
        | Sqlx::BeginFailed
        | Sqlx::Protocol(_) => Trouble::Connection,
        Sqlx::Database(database) => database.code().map_or(Trouble::Other, |code| trouble_of_code(&code)),
        _ => Trouble::Other,
    }
}

/// Whether PostgreSQL refuses a statement because it was prepared before the schema changed.
pub(super) fn is_outdated_statement(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner))) = error else {
        return false;
    };
    inner.as_database_error().and_then(|refusal| refusal.code()).as_deref() == Some(OUTDATED_STATEMENT)
}

/// Whether PostgreSQL refuses a prepared statement that belongs to another connection.
fn is_lost_session(error: &DbErr) -> bool {
    /// `prepared statement … already exists`, `prepared statement … does not exist`.
    const DUPLICATE_OR_UNKNOWN_STATEMENT: [&str; 2] = ["42P05", "26000"];
    /// `bind message supplies 2 parameters, but prepared statement … requires 1`. The code says no more than this.
    const PROTOCOL_VIOLATION: &str = "08P01";
    let Some(refusal) = sqlx_error(error).and_then(|inner| inner.as_database_error()) else { return false };
    let code = refusal.code().unwrap_or_default();
    DUPLICATE_OR_UNKNOWN_STATEMENT.contains(&&*code)
        || (code == PROTOCOL_VIOLATION && refusal.message().contains("prepared statement"))
}

/// No connection is free at the server (53300), or at the pooler, which has no code of its own for it.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    const WORDS: [&str; 4] =
        ["no more connections allowed", "too many clients", "too many connections", "remaining connection slots"];
    let sqlx::Error::Database(refusal) = error else { return false };
    refusal.code().as_deref() == Some("53300") || WORDS.iter().any(|words| refusal.message().contains(words))
}

fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

/// `feature_not_supported`: `cached plan must not change result type`. No statement of ours asks for anything else that
/// PostgreSQL lacks.
const OUTDATED_STATEMENT: &str = "0A000";

/// PostgreSQL's codes have five characters, SQLite's are numbers whose lowest byte is the kind.
fn trouble_of_code(code: &str) -> Trouble {
    /// Busy, locked, read-only, I/O error, cannot open, a lock that others took at the same moment, a schema that changes.
    const SQLITE_PASSING: [u32; 7] = [5, 6, 8, 10, 14, 15, 17];
    const SQLITE_FULL: u32 = 13;
    /// No room to enlarge the shared memory beside the file.
    const SQLITE_NO_SHARED_MEMORY: u32 = 4_874;
    /// Connection exceptions, no resources, operator intervention, system errors, serialization and deadlock.
    const POSTGRES_PASSING: [&str; 5] = ["08", "53", "57", "58", "40"];
    /// A standby that does not write, a transaction that the server ended since it was idle or took too long, a lock that
    /// was not to be had, a statement from before a change of the schema.
    const POSTGRES_PASSING_CODES: [&str; 5] = ["25006", "25P03", "25P04", "55P03", OUTDATED_STATEMENT];
    if code == "53100" {
        return Trouble::Full;
    }
    if code.len() == 5 {
        let passing = POSTGRES_PASSING.contains(&&code[..2]) || POSTGRES_PASSING_CODES.contains(&code);
        return if passing { Trouble::Connection } else { Trouble::Other };
    }
    match code.parse::<u32>() {
        Ok(SQLITE_NO_SHARED_MEMORY) => Trouble::Full,
        Ok(number) if number & 0xff == SQLITE_FULL => Trouble::Full,
        Ok(number) if SQLITE_PASSING.contains(&(number & 0xff)) => Trouble::Connection,
        _ => Trouble::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_the_server_ended_may_be_tried_again() {
        // It was idle for too long, or took too long.
        for code in ["25P03", "25P04"] {
            assert!(matches!(trouble_of_code(code), Trouble::Connection), "{code}");
        }
        // It failed before: no trouble of the connection.
        assert!(matches!(trouble_of_code("25P02"), Trouble::Other));
    }
}
