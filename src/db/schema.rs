//! The connection that the schema is changed over: a step may take as long as it needs, and it goes around a pooler if there
//! is a direct address.

use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait as _};

use crate::db::{
    Config, Database, Error, Postgres,
    connect::open_postgres,
};

/// Where the schema is read and changed.
pub(super) enum Access {
    /// A session, in which each step is a transaction of its own.
    Session(DatabaseConnection),
    /// One transaction for all, through a pooler in transaction mode.
    Pooled(DatabaseTransaction),
}

impl Access {
    /// For asking which steps are applied; without a connection of its own where connections are sessions.
    pub(super) async fn reading(database: &Database) -> Result<Self, Error> {
        if database.is_pooled() { Self::open(database).await } else { Ok(Self::Session(database.read().pool().clone())) }
    }

    /// For changing the schema.
    pub(super) async fn open(database: &Database) -> Result<Self, Error> {
        let pool = database.read().pool().clone();
        let Some(server) = &database.server else { return Ok(Self::Session(pool)) };
        let Config::Postgres(config) = &server.config else { return Ok(Self::Session(pool)) };
        let unhurried = Postgres { statement_timeout: Duration::ZERO, max_connections: 1, ..config.clone() };
        let session = match (&config.direct_url, &server.local) {
            (None, Some(local)) => return Self::begin(&pool, local).await,
            (Some(url), _) => open_postgres(&Postgres { url: url.clone(), ..unhurried }, false).await?,
            (None, None) => open_postgres(&unhurried, false).await?,
        };
        // The server may have a limit of its own for every statement.
        session.execute_unprepared("SET statement_timeout = 0").await?;
        Ok(Self::Session(session))
    }

    /// The migrator's statements are prepared under names that count from 1 in each process: those that another one left on
    /// this connection of the server go first.
    async fn begin(pool: &DatabaseConnection, local: &str) -> Result<Self, Error> {
        let transaction = pool.begin().await?;
        let sql = format!("DEALLOCATE ALL; {local}; SET LOCAL statement_timeout = 0");
        transaction.execute_unprepared(&sql).await?;
        Ok(Self::Pooled(transaction))
    }

    /// The names of the steps that are applied, oldest first.
    pub(super) async fn applied(self) -> Result<Vec<String>, DbErr> {
        let steps = match &self {
            Self::Session(session) => Migrator::get_applied_migrations(session).await,
            Self::Pooled(transaction) => Migrator::get_applied_migrations(transaction).await,
        };
        let names = steps?.iter().map(|step| step.name().to_owned()).collect();
        self.close().await?;
        Ok(names)
    }

    /// Applies the next `steps`, or all that are missing.
    pub(super) async fn up(self, steps: Option<u32>) -> Result<(), DbErr> {
        match &self {
            Self::Session(session) => Migrator::up(session, steps).await?,
            Self::Pooled(transaction) => Migrator::up(transaction, steps).await?,
        }
        self.close().await
    }

    /// Takes back the last `steps`, or all.
    pub(super) async fn down(self, steps: Option<u32>) -> Result<(), DbErr> {
        match &self {
            Self::Session(session) => Migrator::down(session, steps).await?,
            Self::Pooled(transaction) => Migrator::down(transaction, steps).await?,
        }
        self.close().await
    }

    async fn close(self) -> Result<(), DbErr> {
        match self {
            Self::Session(_) => Ok(()),
            Self::Pooled(transaction) => {
                transaction.execute_unprepared("DEALLOCATE ALL").await?;
                transaction.commit().await
            }
        }
    }
}
