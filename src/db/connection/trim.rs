//! Gives connections back to PostgreSQL that are needed no more. The driver closes those that nobody used for a while, but it
//! hands them out in turn: under little work each is used again before its time is over, and a burst's connections all stay.

use std::{collections::VecDeque, sync::Weak, time::Duration};

use tokio::time::Instant;

use crate::db::connection::connect::Shared;

const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Closes idle connections beyond the most that were in use at once within `idle_timeout`; ends with the pool.
pub(in crate::db) async fn trim(shared: Weak<Shared>, idle_timeout: Duration) {
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
            // It is gone either way; a server that is silent does not say goodbye.
            let _ = tokio::time::timeout(CLOSE_LIMIT, surplus.close()).await;
        }
    }
}
