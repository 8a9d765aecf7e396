//! Closes PostgreSQL connections that are no longer needed.
//!
//! The driver closes connections after an idle time, but it uses them in rotation: under a low load each one is used
//! again before that time, and the connections of a burst all stay.

use std::{collections::VecDeque, sync::Weak, time::Duration};

use tokio::time::Instant;

use crate::db::connection::connect::Shared;

const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Closes idle connections beyond the peak use within `idle_timeout`; ends with the pool.
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
            // Takes the connection that has been idle longest, or none if all are in use.
            let Some(surplus) = pool.try_acquire() else { break };
            // The connection is dropped either way; a silent server never confirms the close.
            let _ = tokio::time::timeout(CLOSE_LIMIT, surplus.close()).await;
        }
    }
}
