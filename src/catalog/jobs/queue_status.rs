//! Queue status: jobs in the database and messages in the broker.

use std::{sync::Arc, time::Duration};

use crate::{
    catalog::{BoxError, Catalog, Error},
    db::jobs::{self, finished},
    domain::{Backlog, QueueStatus},
};

/// The broker counts as down if it does not answer in this time.
const BROKER_TIMEOUT: Duration = Duration::from_secs(2);
/// Period in which finished jobs are counted.
const FINISHED_WINDOW: Duration = Duration::from_secs(60);

impl Catalog {
    /// Returns the status of the queue and its broker.
    ///
    /// If the broker does not answer within 2 s, the status contains its error.
    pub async fn queue_status(&self) -> Result<QueueStatus, Error> {
        let now = self.now().await?;
        let read = self.database().read();
        let depth = jobs::depth(&read).await?;
        let done_last_minute = finished::count(&read, now.minus(FINISHED_WINDOW)).await?;
        let broker = if self.queue().needs_relay() { Some(self.ask_broker().await) } else { None };
        let oldest_age = depth.oldest.map(|oldest| now.since(oldest));
        Ok(QueueStatus { engine: self.queue().name(), depth, oldest_age, done_last_minute, broker })
    }

    async fn ask_broker(&self) -> Result<Backlog, BoxError> {
        match tokio::time::timeout(BROKER_TIMEOUT, self.queue().backlog()).await {
            Ok(Ok(backlog)) => Ok(backlog),
            Ok(Err(error)) => Err(Arc::new(error)),
            Err(late) => Err(Arc::new(late)),
        }
    }
}
