//! Database errors, grouped by how the caller must react.

use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};

use crate::code::ErrorCode;

/// A failed statement or connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or is overloaded; the same call may succeed later.
    #[error("the database does not answer")]
    Unavailable(#[source] DbErr),
    /// Settings that are invalid or contradict each other.
    #[error("{0}")]
    Misconfigured(String),
    /// A PostgreSQL session has another connection's prepared statement, or lacks one of this connection.
    #[error("the PostgreSQL session changed between statements, as behind a pooler in transaction mode")]
    SessionLost(#[source] DbErr),
    /// A row with this key already exists.
    #[error("a row with this key already exists")]
    Duplicate(#[source] DbErr),
    /// A referenced row does not exist.
    #[error("a referenced row does not exist")]
    MissingReference(#[source] DbErr),
    /// The disk is full.
    #[error("the database's disk is full")]
    Full(#[source] DbErr),
    /// The schema has migrations of a newer version, which this version does not know.
    #[error(
        "pm {} does not know these migrations of the database schema: {}",
        env!("CARGO_PKG_VERSION"),
        .0.join(", ")
    )]
    NewerSchema(Vec<String>),
    /// A stored value that this version cannot read.
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
    /// A statement that failed unexpectedly.
    #[error("a database statement failed")]
    Statement(#[source] DbErr),
}

impl Error {
    /// Returns the error for a database that did not answer within `limit`.
    pub(crate) fn timed_out(limit: std::time::Duration) -> Self {
        Self::Unavailable(DbErr::Custom(format!("no answer within {limit:?}")))
    }

    /// Returns the code that clients see.
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

    /// Returns the error for a statement such as a count that returned no row. It must not count as zero.
    pub(super) fn no_row() -> Self {
        Self::Unavailable(DbErr::RecordNotFound("a statement that always returns a row returned none".into()))
    }

    /// Returns whether the server or its pooler had no free connection.
    pub fn lacks_connections(&self) -> bool {
        let Self::Unavailable(error) = self else { return false };
        sqlx_error(error).is_some_and(is_full)
    }

    /// Returns whether the same call may succeed later.
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
                match kind_of(inner) {
                    FailureKind::Connection => Self::Unavailable(error),
                    FailureKind::Full => Self::Full(error),
                    FailureKind::Other => Self::Statement(error),
                }
            }
            _ => Self::Statement(error),
        }
    }
}

enum FailureKind {
    Connection,
    Full,
    Other,
}

fn kind_of(error: &sqlx::Error) -> FailureKind {
    use sqlx::Error as Sqlx;
    match error {
        Sqlx::Io(_)
        | Sqlx::Tls(_)
        | Sqlx::PoolTimedOut
        | Sqlx::PoolClosed
        | Sqlx::WorkerCrashed
        | Sqlx::BeginFailed
        | Sqlx::Protocol(_) => FailureKind::Connection,
        Sqlx::Database(database) => database.code().map_or(FailureKind::Other, |code| kind_of_code(&code)),
        _ => FailureKind::Other,
    }
}

/// Returns whether PostgreSQL rejected a statement that was prepared before a schema change.
pub(super) fn is_outdated_statement(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner))) = error else {
        return false;
    };
    inner.as_database_error().and_then(|refusal| refusal.code()).as_deref() == Some(OUTDATED_STATEMENT)
}

/// Returns whether PostgreSQL rejected a prepared statement of another connection.
fn is_lost_session(error: &DbErr) -> bool {
    /// `prepared statement … already exists`, `prepared statement … does not exist`.
    const DUPLICATE_OR_UNKNOWN_STATEMENT: [&str; 2] = ["42P05", "26000"];
    /// `bind message supplies 2 parameters, but prepared statement … requires 1`. The code alone is not specific.
    const PROTOCOL_VIOLATION: &str = "08P01";
    let Some(refusal) = sqlx_error(error).and_then(|inner| inner.as_database_error()) else { return false };
    let code = refusal.code().unwrap_or_default();
    DUPLICATE_OR_UNKNOWN_STATEMENT.contains(&&*code)
        || (code == PROTOCOL_VIOLATION && refusal.message().contains("prepared statement"))
}

/// Returns whether the server (53300) or the pooler (no code) has no free connection.
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

/// `feature_not_supported`: `cached plan must not change result type`. No statement of pm uses another feature that
/// PostgreSQL lacks.
const OUTDATED_STATEMENT: &str = "0A000";

/// Classifies an error code: five characters from PostgreSQL, or a number from SQLite with the kind in its lowest byte.
fn kind_of_code(code: &str) -> FailureKind {
    /// Busy, locked, read-only, I/O error, cannot open, lock protocol race, schema change.
    const SQLITE_PASSING: [u32; 7] = [5, 6, 8, 10, 14, 15, 17];
    const SQLITE_FULL: u32 = 13;
    /// Not enough disk space to enlarge the shared-memory file.
    const SQLITE_NO_SHARED_MEMORY: u32 = 4_874;
    /// Connection exceptions, insufficient resources, operator intervention, system errors, serialization and deadlock.
    const POSTGRES_PASSING: [&str; 5] = ["08", "53", "57", "58", "40"];
    /// A read-only standby; a transaction that the server ended because it was idle or too slow; a lock timeout; a
    /// statement from before a schema change.
    const POSTGRES_PASSING_CODES: [&str; 5] = ["25006", "25P03", "25P04", "55P03", OUTDATED_STATEMENT];
    if code == "53100" {
        return FailureKind::Full;
    }
    if code.len() == 5 {
        let passing = POSTGRES_PASSING.contains(&&code[..2]) || POSTGRES_PASSING_CODES.contains(&code);
        return if passing { FailureKind::Connection } else { FailureKind::Other };
    }
    match code.parse::<u32>() {
        Ok(SQLITE_NO_SHARED_MEMORY) => FailureKind::Full,
        Ok(number) if number & 0xff == SQLITE_FULL => FailureKind::Full,
        Ok(number) if SQLITE_PASSING.contains(&(number & 0xff)) => FailureKind::Connection,
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_ended_by_the_server_may_be_retried() {
        // Idle in transaction for too long, or transaction timeout.
        for code in ["25P03", "25P04"] {
            assert!(matches!(kind_of_code(code), FailureKind::Connection), "{code}");
        }
        // The transaction had already failed: not a connection error.
        assert!(matches!(kind_of_code("25P02"), FailureKind::Other));
    }
}
