//! Which database this is, beside what it holds: a copy holds the same rows and is another database.

use sea_orm::{ConnectionTrait, QueryResult};
use uuid::Uuid;

use crate::{
    db::{
        Database, Error,
        installation::CachePhase,
        jobs::{query, query_one},
        migrate,
    },
    domain::InstallationId,
};

/// What became of an installation whose database was compared with the one that it was in before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is where it was.
    Same,
    /// The database is a copy of another installation's, or was moved; the installation has a new id.
    Copied {
        /// The id before, which the other installation has if there is one.
        from: InstallationId,
        /// The id from now on.
        id: InstallationId,
    },
}

/// Compares the database with the one that the installation was in before, and gives a copy an id of its own.
///
/// The first time there is nothing to compare with, and `notes` says whether the database is noted then.
///
/// # Errors
/// If the database does not answer.
pub async fn settle(database: &Database, notes: bool) -> Result<Settled, Error> {
    const NOTE: &str = "UPDATE installation SET database_identity = $1
        WHERE singleton = 1 AND database_identity IS NULL RETURNING id";
    const RENEW: &str = "UPDATE installation SET id = $1, database_identity = $2, cache_epoch = cache_epoch + 1,
            cache_server = NULL, cache_phase = $3, copied_from = COALESCE(copied_from, id)
        WHERE singleton = 1 AND database_identity = $4 RETURNING cache_epoch";
    if !is_known(database).await? {
        return Ok(Settled::Same);
    }
    let (connection, identity) = (database.read(), of(database).await?);
    let row = query_one(&connection, "SELECT id, database_identity FROM installation WHERE singleton = 1", Vec::new());
    let row = row.await?;
    match row.try_get::<Option<String>>("", "database_identity")? {
        Some(before) if is_same(&before, &identity) => Ok(Settled::Same),
        Some(before) => {
            let from = InstallationId::stored(row.try_get("", "id")?);
            let id = InstallationId::new(Uuid::new_v4());
            let closing = CachePhase::Closing as i64;
            let values = vec![id.as_str().into(), identity.into(), closing.into(), before.into()];
            // Another process may have been faster; then there is a new id already.
            let renewed = !query(&connection, RENEW, values).await?.is_empty();
            Ok(if renewed { Settled::Copied { from, id } } else { Settled::Same })
        }
        None => {
            if notes {
                query(&connection, NOTE, vec![identity.into()]).await?;
            }
            Ok(Settled::Same)
        }
    }
}

/// Returns the installation whose blob store a copied database still names; `None` if the store is this installation's.
///
/// # Errors
/// If the database does not answer.
pub async fn copied_from(database: &Database) -> Result<Option<InstallationId>, Error> {
    const COPIED_FROM: &str = "SELECT copied_from FROM installation WHERE singleton = 1";
    if !is_known(database).await? {
        return Ok(None);
    }
    let from: Option<String> =
        query_one(&database.read(), COPIED_FROM, Vec::new()).await?.try_get("", "copied_from")?;
    Ok(from.map(InstallationId::stored))
}

/// Notes that the blob store is this installation's own.
///
/// # Errors
/// If the database does not answer.
pub async fn forget_origin(connection: &impl ConnectionTrait) -> Result<(), Error> {
    const FORGET: &str = "UPDATE installation SET copied_from = NULL
        WHERE singleton = 1 AND copied_from IS NOT NULL RETURNING id";
    query(connection, FORGET, Vec::new()).await.map(|_| ())
}

/// Whether the schema has the columns.
async fn is_known(database: &Database) -> Result<bool, Error> {
    Ok(migrate::applied(database).await?.iter().any(|name| name == "m0021_installation_identity"))
}

/// Whether two identities are of one database. A part that is empty could not be found out.
fn is_same(before: &str, now: &str) -> bool {
    let parts = before.split(':').zip(now.split(':'));
    parts.into_iter().all(|(before, now)| before == now || before.is_empty() || now.is_empty())
}

/// Returns what tells this database from a copy: SQLite's file; on PostgreSQL the cluster, which a standby shares, and the
/// database's number in it.
async fn of(database: &Database) -> Result<String, Error> {
    const NUMBER: &str = "SELECT oid::bigint AS number FROM pg_database WHERE datname = current_database()";
    const CLUSTER: &str = "SELECT system_identifier::text AS cluster FROM pg_control_system()";
    const MAY_ASK: &str = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE') AS may";
    if let Some(file) = database.file() {
        return Ok(file.identity().as_str().to_owned());
    }
    let connection = database.read();
    let ask = async |sql| -> Result<QueryResult, Error> { query_one(&connection, sql, Vec::new()).await };
    let number: i64 = ask(NUMBER).await?.try_get("", "number")?;
    // Some hosts of databases keep the cluster's name to themselves.
    if !ask(MAY_ASK).await?.try_get::<bool>("", "may")? {
        return Ok(format!(":{number}"));
    }
    let cluster: String = ask(CLUSTER).await?.try_get("", "cluster")?;
    Ok(format!("{cluster}:{number}"))
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn a_part_that_could_not_be_found_out_says_nothing() {
        assert!(is_same("7:16384", "7:16384"));
        assert!(is_same(":16384", "7:16384"));
        assert!(is_same("12:", "12:1700000000"));
        assert!(!is_same("7:16384", "7:16385"));
        assert!(!is_same("8:16384", "7:16384"));
    }
}
