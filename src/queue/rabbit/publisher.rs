//! Publishes job ids, and counts only confirmed messages as published.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use metrics::counter;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use super::{
    Backlog, Error, JobId, PublishError, Role, Target, connection::BrokerConnection, step, supervisor::Supervisor,
};
use crate::queue::message;

/// How long a call waits for a reconnect.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);

/// Timeout for the next confirmation.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);

/// Maximum unconfirmed messages.
const IN_FLIGHT: usize = 256;

/// How long a permission check is valid.
const RIGHTS_LIFETIME: Duration = Duration::from_secs(3);

/// The publisher; its connection closes with the last clone.
#[derive(Clone)]
pub(super) struct Publisher {
    lines: watch::Receiver<Result<Arc<BrokerConnection>, Error>>,
    /// Locked during a permission check, so that concurrent callers share one.
    tried: Arc<Mutex<Option<Tried>>>,
}

/// Result of the last permission check.
struct Tried {
    connection: Weak<BrokerConnection>,
    consumes: bool,
    at: Instant,
    outcome: Result<(), Error>,
}

/// Outcome of one message.
enum Outcome {
    /// Stored, unless it is among the returned messages.
    Confirmed(JobId),
    /// Confirmed, but an unroutable message was returned, which may be another one.
    Returned { confirmed: JobId, returned: JobId },
    /// The broker could not store it.
    Refused,
}

impl Publisher {
    pub(super) fn start(target: Arc<Target>) -> Self {
        let (lines, current) = watch::channel(Err(Error::unavailable("not connected yet")));
        tokio::spawn(keep_connected(Supervisor::new(target, Role::Publisher), lines));
        Self { lines: current, tried: Arc::default() }
    }

    pub(super) async fn publish(&self, jobs: &[JobId]) -> Result<(), PublishError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let connection = self.connection().await.map_err(|source| {
            count("failed", jobs.len());
            PublishError { confirmed: Vec::new(), source }
        })?;
        let (confirmed, failure) = publish_on(&connection, jobs).await;
        count("confirmed", confirmed.len());
        count("failed", jobs.len() - confirmed.len());
        failure.map_or(Ok(()), |source| Err(PublishError { confirmed, source }))
    }

    pub(super) async fn backlog(&self) -> Result<Backlog, Error> {
        self.connection().await?.backlog().await
    }

    /// Checks that the broker grants the needed permissions; the answer is up to 3 s old.
    pub(super) async fn check(&self, consumes: bool) -> Result<(), Error> {
        let connection = self.connection().await?;
        let mut tried = self.tried.lock().await;
        if let Some(last) = &*tried
            && last.at.elapsed() < RIGHTS_LIFETIME
            && last.consumes == consumes
            && last.connection.upgrade().is_some_and(|known| Arc::ptr_eq(&known, &connection))
        {
            return last.outcome.clone();
        }
        // Boxed, since the future is large and readiness checks would contain it.
        let outcome = Box::pin(connection.try_rights(consumes)).await;
        *tried = Some(Tried {
            connection: Arc::downgrade(&connection),
            consumes,
            at: Instant::now(),
            outcome: outcome.clone(),
        });
        outcome
    }

    pub(super) fn outage(&self) -> Option<Error> {
        self.lines.borrow().as_ref().err().cloned()
    }

    /// Returns the connection, after a short wait if there is none.
    async fn connection(&self) -> Result<Arc<BrokerConnection>, Error> {
        let mut lines = self.lines.clone();
        // On a timeout or the end of the connecting task, the channel has the last error.
        let _ = tokio::time::timeout(CONNECTION_WAIT, lines.wait_for(Result::is_ok)).await;
        lines.borrow().clone()
    }
}

/// Keeps a connection in `lines` until there are no receivers.
async fn keep_connected(mut supervisor: Supervisor, lines: watch::Sender<Result<Arc<BrokerConnection>, Error>>) {
    loop {
        let connecting = supervisor.connect(|error| {
            lines.send_modify(|current| *current = Err(error.clone()));
        });
        let connection = tokio::select! {
            connection = connecting => Arc::new(connection),
            () = lines.closed() => return,
        };
        let confirming = connection.channel.confirm_select(ConfirmSelectOptions::default());
        let error = match step("enabling publisher confirms", confirming).await {
            Err(error) => error,
            Ok(()) => {
                lines.send_modify(|current| *current = Ok(Arc::clone(&connection)));
                tokio::select! {
                    error = connection.broken() => error,
                    () = lines.closed() => return connection.close().await,
                }
            }
        };
        lines.send_modify(|current| *current = Err(error.clone()));
        // Publishers that still use the connection fail at once.
        connection.abort();
        supervisor.lost(&error);
    }
}

/// Publishes on `connection`; returns the confirmed jobs and the error of the others.
async fn publish_on(connection: &BrokerConnection, jobs: &[JobId]) -> (Vec<JobId>, Option<Error>) {
    let mut outcomes = stream::iter(jobs.iter().copied()).map(|job| send(connection, job)).buffer_unordered(IN_FLIGHT);
    let mut confirmed = Vec::with_capacity(jobs.len());
    let mut returned = HashSet::new();
    let mut failure = None;
    loop {
        let outcome = match tokio::time::timeout(CONFIRM_LIMIT, outcomes.next()).await {
            Ok(None) => break,
            Ok(Some(outcome)) => outcome,
            Err(_) => Err(Error::unavailable("no confirmation within 10 s")),
        };
        match outcome {
            Ok(Outcome::Confirmed(job)) => confirmed.push(job),
            Ok(Outcome::Returned { confirmed: job, returned: stray }) => {
                confirmed.push(job);
                returned.insert(stray);
            }
            Ok(Outcome::Refused) => failure = Some(Error::unavailable("the broker could not store a message")),
            Err(error) => {
                connection.mark_unusable(&error);
                failure = Some(error);
                break;
            }
        }
    }
    if !returned.is_empty() {
        confirmed.retain(|job| !returned.contains(job));
        // The next connection declares the queue again.
        let error = Error::QueueGone("the queue is gone");
        connection.mark_unusable(&error);
        failure.get_or_insert(error);
    }
    (confirmed, failure)
}

/// Publishes one message and waits for its confirmation.
async fn send(connection: &BrokerConnection, job: JobId) -> Result<Outcome, Error> {
    let fail = |source| Error::broker("publishing", source);
    // With `mandatory` the broker returns an unroutable message instead of dropping it with a confirmation.
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
    let sent = connection
        .channel
        .basic_publish(
            "".into(),
            connection.queue().into(),
            options,
            &message::encode(connection.installation(), job),
            properties,
        )
        .await
        .map_err(fail)?;
    match sent.await.map_err(fail)? {
        Confirmation::Ack(None) => Ok(Outcome::Confirmed(job)),
        Confirmation::Ack(Some(stray)) | Confirmation::Nack(Some(stray)) => {
            // One confirmation can cover several messages, so the returned body identifies the job.
            let returned = message::decode(&stray.delivery.data, connection.installation()).unwrap_or(job);
            Ok(Outcome::Returned { confirmed: job, returned })
        }
        Confirmation::Nack(None) | Confirmation::NotRequested => Ok(Outcome::Refused),
    }
}

fn count(outcome: &'static str, jobs: usize) {
    counter!("pm_queue_published_total", "outcome" => outcome).increment(jobs as u64);
}
