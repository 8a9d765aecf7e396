//! The herald: tells other processes on PostgreSQL that this one wrote events, many at once. It stands outside the
//! transactions that write them, for a notification makes commits wait for each other.

use std::time::Duration;

use crate::{catalog::Catalog, stop::Stop};

/// Between two tries while the database does not answer; listeners look by themselves meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells of events until `stop`.
pub async fn herald(catalog: Catalog, mut stop: Stop) {
    loop {
        let told = tokio::select! {
            () = stop.wanted() => return,
            told = catalog.tell_listeners() => told,
        };
        if let Err(error) = told {
            tracing::debug!(%error, "other processes could not be told of events");
            tokio::select! {
                () = stop.wanted() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}
