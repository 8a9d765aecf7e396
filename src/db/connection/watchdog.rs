//! Detects that another process has ended, by locks that live as long as their process.
//!
//! A process that claims work holds a lock, which its operating system or the database server releases when the process
//! ends. The lock is a file beside the SQLite file, or an advisory lock of a separate session on PostgreSQL. A process
//! that is frozen or disconnected keeps its lock: it is slow, not dead.

use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sea_orm::{
    DbErr,
    sqlx::{self, Connection as _, PgConnection, postgres::PgConnectOptions},
};
use tokio::task::AbortHandle;

use crate::{
    db::{Database, Error, statement::query},
    domain::HolderId,
    private_files,
};

/// The lock that shows other processes that this one is alive; released on drop.
#[derive(Debug)]
pub struct Presence {
    id: HolderId,
    _lock: Lock,
}

#[derive(Debug)]
enum Lock {
    File {
        _file: File,
    },
    Session(AbortHandle),
    /// Behind a pooler in transaction mode no session can hold a lock.
    Hidden,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Self::Session(task) = self {
            task.abort();
        }
    }
}

/// Interval and timeout of pings on the connection that holds the lock.
const PING: Duration = Duration::from_secs(2);
/// Pause before the lock is acquired again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);

impl Presence {
    /// Returns the id of this process in lease tokens.
    pub const fn id(&self) -> HolderId {
        self.id
    }
}

impl Database {
    /// Takes a presence lock under a new random id.
    pub async fn appear(&self) -> Result<Presence, Error> {
        let id = HolderId(fastrand::u64(..)).visible();
        let lock = match self.directory_of_holders() {
            Some(directory) => {
                let locked = tokio::task::spawn_blocking(move || lock_file(&directory, id));
                let file = locked.await.map_err(io::Error::other).and_then(|file| file).map_err(|e| of_io(&e))?;
                Lock::File { _file: file }
            }
            None => match self.read().session_options() {
                Some(options) => Lock::Session(tokio::spawn(hold_for_ever(options, id)).abort_handle()),
                None => return Ok(Presence { id: id.hidden(), _lock: Lock::Hidden }),
            },
        };
        Ok(Presence { id, _lock: lock })
    }

    /// Returns those of `holders` that use presence locks and whose lock is free.
    /// On SQLite they have ended. On PostgreSQL a process may be reconnecting, so only repeated absence is proof.
    pub async fn absent(&self, holders: &BTreeSet<HolderId>) -> Result<BTreeSet<HolderId>, Error> {
        let holders: &BTreeSet<_> = &holders.iter().copied().filter(|holder| !holder.is_hidden()).collect();
        const PRESENT: &str = "SELECT (classid::bigint << 32) | objid::bigint AS holder FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        if holders.is_empty() {
            return Ok(BTreeSet::new());
        }
        if let Some(directory) = self.directory_of_holders() {
            let holders = holders.clone();
            let ended = move || holders.into_iter().filter(|id| has_ended(&directory, *id)).collect();
            return tokio::task::spawn_blocking(ended).await.map_err(|error| of_io(&io::Error::other(error)));
        }
        let mut absent = holders.clone();
        for row in query(&self.read(), PRESENT, Vec::new()).await? {
            absent.remove(&HolderId(row.try_get::<i64>("", "holder")?.cast_unsigned()));
        }
        Ok(absent)
    }

    /// Deletes the lock files of ended processes, except those of `kept`.
    /// Leases still name the processes in `kept`.
    pub async fn tidy_holders(&self, kept: BTreeSet<HolderId>) -> Result<(), Error> {
        let Some(directory) = self.directory_of_holders() else { return Ok(()) };
        let tidy = tokio::task::spawn_blocking(move || {
            for entry in std::fs::read_dir(&directory)?.flatten() {
                let id = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok()).map(HolderId);
                if id.is_some_and(|id| !kept.contains(&id) && has_ended(&directory, id)) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        });
        match tidy.await.map_err(io::Error::other).and_then(|tidied| tidied) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(of_io(&error)),
            _ => Ok(()),
        }
    }

    fn directory_of_holders(&self) -> Option<PathBuf> {
        self.lock_file.as_ref().map(|file| file.with_extension("workers"))
    }
}

/// Creates a lock file; it gets its name after it is locked, so that it is never found unlocked while its process
/// lives.
fn lock_file(directory: &Path, id: HolderId) -> io::Result<File> {
    private_files::create_dir_all(directory)?;
    let unnamed = directory.join(format!("{id}.new"));
    let file = private_files::options().write(true).create(true).truncate(true).open(&unnamed)?;
    file.lock()?;
    std::fs::rename(&unnamed, directory.join(id.to_string()))?;
    Ok(file)
}

/// Returns whether a process released its file. A missing file is no proof.
fn has_ended(directory: &Path, id: HolderId) -> bool {
    let Ok(file) = File::open(directory.join(id.to_string())) else { return false };
    match file.try_lock_shared() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

/// Holds the lock, reconnecting after each failure.
async fn hold_for_ever(options: Arc<PgConnectOptions>, id: HolderId) {
    loop {
        let held: Result<(), sqlx::Error> = hold(&options, id).await;
        if let Err(error) = held {
            tracing::debug!(%error, "lost the connection that holds the presence lock");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn hold(options: &PgConnectOptions, id: HolderId) -> Result<(), sqlx::Error> {
    let late = |_| sqlx::Error::Io(io::ErrorKind::TimedOut.into());
    let mut connection = tokio::time::timeout(PING * 2, PgConnection::connect_with(options)).await.map_err(late)??;
    // Shared: after a lost connection the server may keep the old session for a while.
    let lock = format!("SELECT pg_advisory_lock_shared({})", id.0.cast_signed());
    tokio::time::timeout(PING, sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut connection))
        .await
        .map_err(late)??;
    loop {
        tokio::time::sleep(PING).await;
        tokio::time::timeout(PING, connection.ping()).await.map_err(late)??;
    }
}

fn of_io(error: &io::Error) -> Error {
    Error::Unavailable(DbErr::Custom(format!("cannot use the lock files of workers: {error}")))
}
