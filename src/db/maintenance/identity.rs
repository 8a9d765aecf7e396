//! Identifies the physical database, so that a copy with the same rows can be detected.

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

/// Result of comparing the database with the one that the installation used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is the same database.
    Same,
    /// The database was copied or moved; the installation has a new id.
    Copied {
        /// The id before, which the original installation keeps if it exists.
        from: InstallationId,
        /// The new id.
        id: InstallationId,
    },
}

/// The blob store that the database is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreClaim {
    /// The id of the installation.
    pub id: InstallationId,
    /// The id of its blob store; `None` until one is chosen.
    pub store: Option<String>,
    /// The store's previous owner if the database was copied or moved.
    pub copied_from: Option<InstallationId>,
}

/// Detects a copied database and gives it an installation id of its own.
///
/// The first time there is nothing to compare with; `notes` says whether to store the identity then.
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
        // No identity is stored, or one with fewer parts than are known now.
        before => {
            if notes {
                note(database, before, identity).await?;
            }
            Ok(Settled::Same)
        }
    }
}

/// Stores a new id; returns `None` if another process did so first.
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

/// Reads which blob store the database is bound to.
pub async fn store_claim(connection: &impl ConnectionTrait) -> Result<StoreClaim, Error> {
    read_claim(connection, "").await
}

/// The store claim, locked against changes by other processes. Dropping it releases the lock.
#[derive(Debug)]
pub struct LockedClaim {
    /// The claim.
    pub claim: StoreClaim,
    write: Write,
}

impl LockedClaim {
    /// Locks and reads the claim; waits while another process holds the lock.
    pub async fn lock(database: &Database) -> Result<Self, Error> {
        let write = database.begin().await?;
        let locks = write.get_database_backend() == DbBackend::Postgres;
        let claim = read_claim(&*write, if locks { " FOR UPDATE" } else { "" }).await?;
        Ok(Self { claim, write })
    }

    /// Records that uploaded originals may have the same kind of keys as renditions.
    pub async fn note_plain_originals(&self) -> Result<(), Error> {
        const SET: &str = "UPDATE installation SET plain_originals = 1 WHERE singleton = 1 RETURNING id";
        query(&*self.write, SET, Vec::new()).await.map(|_| ())
    }

    /// Binds the installation to its own blob store.
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

/// Returns whether the schema has the columns.
pub async fn is_known(database: &Database) -> Result<bool, Error> {
    Ok(migrate::applied(database).await?.iter().any(|name| name == "m0021_installation_identity"))
}

/// Returns whether two identities belong to one database. An empty part is unknown and matches any.
fn is_same(before: &str, now: &str) -> bool {
    let mut parts = before.split(':').zip(now.split(':'));
    parts.all(|(before, now)| before == now || before.is_empty() || now.is_empty())
}

/// Returns the identity of this database.
/// On SQLite this is the file. On PostgreSQL it is the cluster, which a standby shares, and the database's number in
/// it.
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
    // Some hosting providers do not allow reading the cluster's identifier.
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
    fn an_unknown_part_of_an_identity_matches_any() {
        assert!(is_same("7:16384", "7:16384"));
        assert!(is_same(":16384", "7:16384"));
        assert!(is_same("12:", "12:1700000000"));
        assert!(!is_same("7:16384", "7:16385"));
        assert!(!is_same("8:16384", "7:16384"));
    }
}
