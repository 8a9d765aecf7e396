//! Who may refer to blobs, remove them or copy them at the same time, in all processes: referring and removing exclude each
//! other, and nothing is removed while somebody copies. PostgreSQL has advisory locks for this, which end with their
//! transaction; SQLite has its one writer, and a file beside the database that is locked while somebody copies.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Deref,
    path::PathBuf,
    sync::Arc,
};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, TransactionOptions};

use crate::{
    db::{Database, Error, Transaction, Write},
    private_files,
};

/// `pm` and a number: the locks' names within one PostgreSQL database.
const REFERRING: i64 = 0x706d_0001;
const COPYING: i64 = 0x706d_0002;

/// While it lasts no blob is removed.
#[derive(Debug)]
pub struct Hold {
    transaction: Option<Transaction>,
    _file: Option<File>,
}

/// A transaction in which blobs may be removed that nothing refers to: until it ends nobody refers to any.
#[derive(Debug)]
pub struct Removal {
    write: Write,
    _file: Option<File>,
}

/// Keeps blobs from being removed until the transaction ends, which is about to refer to some; waits for a removal that is
/// under way. What was removed before is to be noticed after this. On SQLite it must be a transaction that writes.
///
/// # Errors
/// If the database does not answer.
pub async fn refer(write: &Write) -> Result<(), Error> {
    if write.get_database_backend() == DbBackend::Postgres {
        lock(&**write, "SELECT pg_advisory_xact_lock_shared($1)", REFERRING).await?;
    }
    Ok(())
}

impl Database {
    /// Keeps blobs from being removed by any process, for as long as the answer is held: an hour if need be. Others go on
    /// referring to blobs meanwhile.
    ///
    /// # Errors
    /// If the database does not answer, or its lock file cannot be made.
    pub async fn hold_blobs(&self) -> Result<Hold, Error> {
        if let Some(path) = &self.lock_file {
            let path = path.clone();
            let locked = tokio::task::spawn_blocking(move || {
                let file = open(&path)?;
                file.lock_shared().map(|()| file)
            });
            let file = locked.await.map_err(io::Error::other).and_then(|file| file).map_err(|e| of_io(&e))?;
            return Ok(Hold { transaction: None, _file: Some(file) });
        }
        let transaction = self.read().begin(TransactionOptions::default()).await?;
        // It says nothing more until it ends, which a careful server may take for a client that went away.
        transaction.stay_idle().await?;
        lock(&transaction, "SELECT pg_advisory_xact_lock_shared($1)", COPYING).await?;
        Ok(Hold { transaction: Some(transaction), _file: None })
    }

    /// Begins a removal: waits up to half a second for those who are referring to blobs just now. `None` if somebody copies
    /// blobs.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if those who refer took too long, or the database does not answer.
    pub async fn begin_removal(&self) -> Result<Option<Removal>, Error> {
        if let Some(path) = &self.lock_file {
            let Some(file) = open_alone(path).await? else { return Ok(None) };
            return Ok(Some(Removal { write: self.begin().await?, _file: Some(file) }));
        }
        let write = self.begin().await?;
        if !try_lock(&*write, COPYING).await? {
            return Ok(None);
        }
        // Whoever comes to refer to a blob queues behind this wait, so it must be short.
        write.execute_unprepared("SET LOCAL lock_timeout = '500ms'").await?;
        lock(&*write, "SELECT pg_advisory_xact_lock($1)", REFERRING).await?;
        // A store may take longer over a removal than the server lets a transaction say nothing.
        write.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = '60s'").await?;
        Ok(Some(Removal { write, _file: None }))
    }
}

impl Hold {
    /// Lets blobs be removed again; dropping it does so, too, a little later.
    ///
    /// # Errors
    /// If the database does not answer: then it let go by itself.
    pub async fn release(self) -> Result<(), Error> {
        match self.transaction {
            Some(transaction) => transaction.commit().await,
            None => Ok(()),
        }
    }
}

impl Removal {
    /// Lets others refer to blobs again.
    ///
    /// # Errors
    /// If the database does not answer: then it let go by itself.
    pub async fn end(self) -> Result<(), Error> {
        self.write.commit().await
    }
}

impl Deref for Removal {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.write
    }
}

async fn lock(connection: &impl ConnectionTrait, sql: &str, key: i64) -> Result<(), Error> {
    connection.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, [key.into()])).await?;
    Ok(())
}

async fn try_lock(connection: &impl ConnectionTrait, key: i64) -> Result<bool, Error> {
    const TRY: &str = "SELECT pg_try_advisory_xact_lock($1) AS locked";
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, TRY, [key.into()]);
    Ok(connection.query_one_raw(statement).await?.ok_or_else(Error::no_row)?.try_get("", "locked")?)
}

/// The lock file for nobody else, or `None` if somebody has it.
async fn open_alone(path: &Arc<PathBuf>) -> Result<Option<File>, Error> {
    let path = path.clone();
    let locked = tokio::task::spawn_blocking(move || {
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    });
    locked.await.map_err(io::Error::other).and_then(|file| file).map_err(|error| of_io(&error))
}

fn open(path: &PathBuf) -> io::Result<File> {
    private_files::options().create(true).truncate(false).write(true).open(path)
}

fn of_io(error: &io::Error) -> Error {
    Error::Unavailable(DbErr::Custom(format!("the lock beside the database cannot be taken: {error}")))
}
