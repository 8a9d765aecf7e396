//! How the queue is: what the database knows of the jobs, and what the broker says of its messages.

use std::{sync::Arc, time::Duration};

use crate::{
    catalog::{BoxError, Catalog, Error},
    db::jobs::{self, finished},
    domain::{Backlog, QueueStatus},
};

/// The broker answers within this, or counts as away.
const PATIENCE: Duration = Duration::from_secs(2);
/// The span in which finished jobs are counted.
const LATELY: Duration = Duration::from_secs(60);

impl Catalog {
    /// How the queue is. A broker that does not answer within 2 s is part of the answer.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn queue_status(&self) -> Result<QueueStatus, Error> {
        let now = self.now().await?;
        let read = self.database().read();
        let depth = jobs::depth(&read).await?;
        let done_last_minute = finished::count(&read, now.minus(LATELY)).await?;
        let broker = if self.queue().needs_relay() { Some(self.ask_broker().await) } else { None };
        let oldest_age = depth.oldest.map(|oldest| now.since(oldest));
        Ok(QueueStatus { engine: self.queue().name(), depth, oldest_age, done_last_minute, broker })
    }

    async fn ask_broker(&self) -> Result<Backlog, BoxError> {
        match tokio::time::timeout(PATIENCE, self.queue().backlog()).await {
            Ok(Ok(backlog)) => Ok(backlog),
            Ok(Err(error)) => Err(Arc::new(error)),
            Err(late) => Err(Arc::new(late)),
        }
    }
}
