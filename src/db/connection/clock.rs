//! The database's clock, which all processes use to write and compare times.
//!
//! PostgreSQL: the server's clock. SQLite: all processes are on one machine and share its monotonic clock; an anchor in
//! the database, one per boot of the machine, stores the date of the boot. A process corrects the anchor when it starts
//! or when its wall clock is stepped. Rows that wait then still wait as long as they had to.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use crate::{
    clock::{BootClock, Timestamp},
    db::{Database, Error, Write, statement::query},
};

/// The clock that the processes of one SQLite file share.
#[derive(Debug)]
pub(in crate::db) struct FileClock {
    machine: BootClock,
    /// The boot time of the machine as this process knows it; [`UNKNOWN`] before the first query.
    booted_at: AtomicI64,
    /// The boot time by this process's wall clock at its last check.
    seen: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;
/// Change of the wall clock against the monotonic clock that counts as a step.
const STEP_MICROS: i64 = 1_000_000;
/// Tolerated error of the anchor.
const TOLERANCE_MICROS: i64 = 2_000_000;

impl FileClock {
    /// Returns the clock.
    /// Returns `None` if the processes share no monotonic clock, or logs a warning if it cannot be read.
    pub(in crate::db) fn find() -> Option<Arc<Self>> {
        let machine = BootClock::find().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the machine's monotonic clock; using this process's wall clock");
            None
        })?;
        Some(Arc::new(Self { machine, booted_at: AtomicI64::new(UNKNOWN), seen: AtomicI64::new(UNKNOWN) }))
    }

    /// Returns the machine's boot time by this process's wall clock.
    fn wall_boot_time(&self) -> i64 {
        Timestamp::now().0 - self.machine.micros()
    }

    fn at(&self, booted_at: i64) -> Timestamp {
        self.booted_at.store(booted_at, Ordering::Relaxed);
        Timestamp(booted_at + self.machine.micros())
    }

    async fn anchor(&self, connection: &impl ConnectionTrait) -> Result<Option<i64>, Error> {
        const ANCHOR: &str = "SELECT booted_at FROM clock_anchors WHERE boot = $1";
        let rows = query(connection, ANCHOR, vec![self.machine.boot.as_str().into()]).await?;
        Ok(rows.first().map(|row| row.try_get("", "booted_at")).transpose()?)
    }

    async fn set_anchor(&self, write: &Write, booted_at: i64) -> Result<(), Error> {
        const SET: &str = "INSERT INTO clock_anchors (boot, booted_at) VALUES ($1, $2)
            ON CONFLICT (boot) DO UPDATE SET booted_at = excluded.booted_at RETURNING boot";
        query(&**write, SET, vec![self.machine.boot.as_str().into(), booted_at.into()]).await?;
        Ok(())
    }

    /// Returns whether the clock needs a correction by this process.
    /// This is so if it has never corrected it, or if its wall clock was stepped since. `now` is
    /// [`wall_boot_time`](Self::wall_boot_time).
    fn is_stepped(&self, now: i64) -> bool {
        let before = self.seen.load(Ordering::Relaxed);
        before == UNKNOWN || (now - before).abs() > STEP_MICROS
    }
}

impl Database {
    /// Returns the database's time.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        let Some(clock) = &self.clock else { return server_time(&self.read()).await };
        let booted_at = match clock.booted_at.load(Ordering::Relaxed) {
            UNKNOWN => clock.anchor(&self.read()).await?.unwrap_or_else(|| clock.wall_boot_time()),
            known => known,
        };
        Ok(clock.at(booted_at))
    }

    /// Corrects the SQLite clock after a start or a step of the wall clock.
    /// Long-running processes call it periodically. Returns the correction in microseconds, usually 0.
    pub async fn correct_clock(&self) -> Result<i64, Error> {
        let Some(clock) = &self.clock else { return Ok(0) };
        let boot_time = clock.wall_boot_time();
        if !clock.is_stepped(boot_time) {
            clock.seen.store(boot_time, Ordering::Relaxed);
            return Ok(0);
        }
        // Only a committed correction counts: after an error the next call tries again.
        let shift = self.align_to_wall_clock(clock).await?;
        clock.seen.store(boot_time, Ordering::Relaxed);
        Ok(shift)
    }

    async fn align_to_wall_clock(&self, clock: &FileClock) -> Result<i64, Error> {
        let write = self.begin().await?;
        write.now().await?;
        let wanted = clock.wall_boot_time();
        let shift = wanted - clock.booted_at.load(Ordering::Relaxed);
        if shift.abs() <= TOLERANCE_MICROS {
            write.commit().await?;
            return Ok(0);
        }
        clock.set_anchor(&write, wanted).await?;
        for sql in [
            "UPDATE jobs SET run_at = run_at + $1, updated_at = updated_at + $1 WHERE state = 'queued'",
            "UPDATE webhook_deliveries SET run_at = run_at + $1, updated_at = updated_at + $1 WHERE state = 'queued'",
            "UPDATE webhooks SET paused_until = paused_until + $1, failing_since = failing_since + $1
             WHERE paused_until IS NOT NULL OR failing_since IS NOT NULL",
        ] {
            let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, [Value::from(shift)]);
            write.execute_raw(statement).await?;
        }
        write.now().await?;
        write.commit().await?;
        Ok(shift)
    }
}

impl Write {
    /// Returns the database's time for this transaction.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        let Some(clock) = &self.clock else { return server_time(&**self).await };
        let booted_at = match clock.anchor(&**self).await? {
            Some(anchor) => anchor,
            None => {
                let booted_at = clock.wall_boot_time();
                clock.set_anchor(self, booted_at).await?;
                booted_at
            }
        };
        Ok(clock.at(booted_at))
    }
}

/// Returns the server's current time, which advances within a transaction.
async fn server_time(connection: &impl ConnectionTrait) -> Result<Timestamp, Error> {
    const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now";
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(Timestamp::now());
    }
    let rows = query(connection, NOW, Vec::new()).await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("the query for the server's time returned no row".into()))?;
    Ok(Timestamp(row.try_get("", "now")?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::db::{Config, migrate};

    #[tokio::test]
    async fn a_failed_clock_correction_is_retried() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config::Sqlite { path: directory.path().join("pm.db") };
        let database = Database::open(&config).await.expect("a database");
        migrate::up(&database, None).await.expect("a schema");
        database.correct_clock().await.expect("a clock");
        let clock = database.clock.clone().expect("a clock");
        let write = database.begin().await.expect("a transaction");
        let hour_ahead = clock.wall_boot_time() + 3_600_000_000;
        clock.set_anchor(&write, hour_ahead).await.expect("an anchor");
        write.commit().await.expect("stored");
        clock.seen.store(hour_ahead, Ordering::Relaxed);

        let rename = async |from: &str, to: &str| {
            let sql = format!("ALTER TABLE {from} RENAME TO {to}");
            database.read().execute_unprepared(&sql).await.expect("a table");
        };
        rename("webhooks", "renamed").await;
        database.correct_clock().await.expect_err("a table is missing");
        rename("renamed", "webhooks").await;
        let shift = database.correct_clock().await.expect("a clock");
        assert!((-3_601_000_000..-3_599_000_000).contains(&shift), "it was corrected by {shift}");
        assert_eq!(database.correct_clock().await.expect("a clock"), 0);
    }
}
