//! Which database this is, beside what it holds: a copy holds the same rows and is another database.

use sea_orm::{ConnectionTrait, DbBackend, QueryResult};
use uuid::Uuid;

use crate::{
    db::{
        Database, Error, Write,
        connection::installation::CachePhase,
        migrate,
        statement::{query, query_one},
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

/// What the database says of its blob store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreClaim {
    /// The installation.
    pub id: InstallationId,
    /// The id of its blob store; `None` until one is chosen.
    pub store: Option<String>,
    /// The installation that the store belonged to when the database was copied or moved; `None` if it is this one's own.
    pub copied_from: Option<InstallationId>,
}

/// Compares the database with the one that the installation was in before, and gives a copy an id of its own.
///
/// The first time there is nothing to compare with, and `notes` says whether the database is noted then.
///
/// # Errors
/// If the database does not answer.
pub async fn settle(database: &Database, notes: bool) -> Result<Settled, Error> {
    const NOTED: &str = "SELECT id, database_identity FROM installation WHERE singleton = 1";
    if !is_known(database).await? {
        return Ok(Settled::Same);
    }
    let identity = of(database).await?;
    let row = query_one(&database.read(), NOTED, Vec::new()).await?;
    match row.try_get::<Option<String>>("", "database_identity")? {
        Some(before) if !is_same(&before, &identity) => {
            let from = InstallationId::stored(row.try_get("", "id")?);
            let renewed = renew(database, &before, identity).await?;
            Ok(renewed.map_or(Settled::Same, |id| Settled::Copied { from, id }))
        }
        Some(before) if before == identity => Ok(Settled::Same),
        // Nothing is noted, or less than is known now.
        before => {
            if notes {
                note(database, before, identity).await?;
            }
            Ok(Settled::Same)
        }
    }
}

/// `None` if another process was faster.
async fn renew(database: &Database, before: &str, identity: String) -> Result<Option<InstallationId>, Error> {
    const RENEW: &str = "UPDATE installation SET id = $1, database_identity = $2, cache_epoch = cache_epoch + 1,
            cache_server = NULL, cache_phase = $3,
            copied_from = CASE WHEN blob_store IS NULL THEN NULL ELSE COALESCE(copied_from, id) END
        WHERE singleton = 1 AND database_identity = $4 RETURNING cache_epoch";
    let id = InstallationId::new(Uuid::new_v4());
    let closing = CachePhase::Closing as i64;
    let write = database.begin().await?;
    let renewed = query(&*write, RENEW, vec![id.as_str().into(), identity.into(), closing.into(), before.into()]);
    let renewed = !renewed.await?.is_empty();
    write.commit().await?;
    Ok(renewed.then_some(id))
}

async fn note(database: &Database, before: Option<String>, identity: String) -> Result<(), Error> {
    const NOTE: &str = "UPDATE installation SET database_identity = $1
        WHERE singleton = 1 AND COALESCE(database_identity, '') = $2 RETURNING id";
    let write = database.begin().await?;
    query(&*write, NOTE, vec![identity.into(), before.unwrap_or_default().into()]).await?;
    write.commit().await
}

/// Reads what the database says of its blob store.
///
/// # Errors
/// If the database does not answer.
pub async fn store_claim(connection: &impl ConnectionTrait) -> Result<StoreClaim, Error> {
    read_claim(connection, "").await
}

/// A claim under a lock: no other process changes it. Dropping it releases the lock.
#[derive(Debug)]
pub struct LockedClaim {
    /// The claim.
    pub claim: StoreClaim,
    write: Write,
}

impl LockedClaim {
    /// Locks and reads the claim; waits while another process holds the lock.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn lock(database: &Database) -> Result<Self, Error> {
        let write = database.begin().await?;
        let locks = write.get_database_backend() == DbBackend::Postgres;
        let claim = read_claim(&*write, if locks { " FOR UPDATE" } else { "" }).await?;
        Ok(Self { claim, write })
    }

    /// Notes that uploaded originals may be among the blobs whose keys look like those of renditions.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn note_plain_originals(&self) -> Result<(), Error> {
        const SET: &str = "UPDATE installation SET plain_originals = 1 WHERE singleton = 1 RETURNING id";
        query(&*self.write, SET, Vec::new()).await.map(|_| ())
    }

    /// Names the installation's own blob store from now on.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn name(self, store: &str) -> Result<(), Error> {
        const SET: &str =
            "UPDATE installation SET blob_store = $1, copied_from = NULL WHERE singleton = 1 RETURNING id";
        query(&*self.write, SET, vec![store.into()]).await?;
        self.write.commit().await
    }
}

async fn read_claim(connection: &impl ConnectionTrait, locks: &str) -> Result<StoreClaim, Error> {
    let sql = format!("SELECT id, blob_store, copied_from FROM installation WHERE singleton = 1{locks}");
    let row = query_one(connection, &sql, Vec::new()).await?;
    Ok(StoreClaim {
        id: InstallationId::stored(row.try_get("", "id")?),
        store: row.try_get("", "blob_store")?,
        copied_from: row.try_get::<Option<String>>("", "copied_from")?.map(InstallationId::stored),
    })
}

/// Whether the schema has the columns.
///
/// # Errors
/// If the database does not answer.
pub async fn is_known(database: &Database) -> Result<bool, Error> {
    Ok(migrate::applied(database).await?.iter().any(|name| name == "m0021_installation_identity"))
}

/// Whether two identities are of one database. A part that is empty could not be found out.
fn is_same(before: &str, now: &str) -> bool {
    let mut parts = before.split(':').zip(now.split(':'));
    parts.all(|(before, now)| before == now || before.is_empty() || now.is_empty())
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
