//! Gives connections back to PostgreSQL that are needed no more. The driver closes those that nobody used for a while, but it
//! hands them out in turn: under little work each is used again before its time is over, and a burst's connections all stay.

use std::{
    collections::VecDeque,
    sync::{
        Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sea_orm::sqlx::PgPool;
use tokio::time::Instant;

use crate::db::connect::Shared;

/// The most connections that were in use at once since the last look.
#[derive(Debug, Default)]
pub(super) struct Demand(AtomicU32);

impl Demand {
    /// Notes that one more connection is about to be used.
    pub(super) fn note(&self, pool: &PgPool) {
        self.0.fetch_max(in_use(pool) + 1, Ordering::Relaxed);
    }

    fn take(&self, pool: &PgPool) -> u32 {
        self.0.swap(0, Ordering::Relaxed).max(in_use(pool))
    }
}

fn in_use(pool: &PgPool) -> u32 {
    pool.size().saturating_sub(u32::try_from(pool.num_idle()).unwrap_or(u32::MAX))
}

/// Closes idle connections beyond the most that were in use at once within `idle_timeout`; ends with the pool.
pub(super) async fn trim(shared: Weak<Shared>, idle_timeout: Duration) {
    let every = (idle_timeout / 4).clamp(Duration::from_millis(50), Duration::from_secs(5));
    let mut peaks = VecDeque::new();
    loop {
        tokio::time::sleep(every).await;
        let Some(shared) = shared.upgrade() else { return };
        let connection = shared.connection();
        let pool = connection.pool().get_postgres_connection_pool();
        peaks.push_back((Instant::now(), shared.demand.take(pool)));
        drop(shared);
        while peaks.front().is_some_and(|(at, _)| at.elapsed() > idle_timeout) {
            peaks.pop_front();
        }
        let needed = peaks.iter().map(|(_, peak)| *peak).max().unwrap_or(0).max(1);
        for _ in needed..pool.size() {
            // The one that has been idle longest; none if all are in use by now.
            let Some(surplus) = pool.try_acquire() else { break };
            // It is gone either way.
            let _ = surplus.close().await;
        }
    }
}
