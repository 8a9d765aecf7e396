//! Publishes job numbers and counts as published only what the broker has confirmed.

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

use super::{Backlog, Error, JobId, PublishError, Role, Target, line::Line, step, supervisor::Supervisor};
use crate::queue::message;

/// A call waits this long for a connection that is just coming back.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);

/// The broker has this long for its next confirmation.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);

/// Messages under way at once.
const IN_FLIGHT: usize = 256;

/// What the broker lets this process do is tried this often at most.
const RIGHTS_LIFETIME: Duration = Duration::from_secs(3);

/// The publishing side; its connection ends with the last clone.
#[derive(Clone)]
pub(super) struct Publisher {
    lines: watch::Receiver<Result<Arc<Line>, Error>>,
    /// Held while the rights are tried, so that many who ask cost the broker one trial.
    tried: Arc<Mutex<Option<Tried>>>,
}

/// What came of the last trial of the rights.
struct Tried {
    line: Weak<Line>,
    consumes: bool,
    at: Instant,
    outcome: Result<(), Error>,
}

/// What became of one message.
enum Outcome {
    /// Stored, unless it is among those returned.
    Confirmed(JobId),
    /// Confirmed, but a message came back that fits no queue; it may be another than the one confirmed.
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
        let line = self.line().await.map_err(|source| {
            count("failed", jobs.len());
            PublishError { confirmed: Vec::new(), source }
        })?;
        let (confirmed, failure) = publish_on(&line, jobs).await;
        count("confirmed", confirmed.len());
        count("failed", jobs.len() - confirmed.len());
        failure.map_or(Ok(()), |source| Err(PublishError { confirmed, source }))
    }

    pub(super) async fn backlog(&self) -> Result<Backlog, Error> {
        self.line().await?.backlog().await
    }

    /// Whether the broker lets this process do what it needs; the answer is up to 3 s old.
    pub(super) async fn check(&self, consumes: bool) -> Result<(), Error> {
        let line = self.line().await?;
        let mut tried = self.tried.lock().await;
        if let Some(last) = &*tried
            && last.at.elapsed() < RIGHTS_LIFETIME
            && last.consumes == consumes
            && last.line.upgrade().is_some_and(|known| Arc::ptr_eq(&known, &line))
        {
            return last.outcome.clone();
        }
        let outcome = line.try_rights(consumes).await;
        *tried = Some(Tried { line: Arc::downgrade(&line), consumes, at: Instant::now(), outcome: outcome.clone() });
        outcome
    }

    pub(super) fn outage(&self) -> Option<Error> {
        self.lines.borrow().as_ref().err().cloned()
    }

    /// The connection, after a short wait if need be.
    async fn line(&self) -> Result<Arc<Line>, Error> {
        let mut lines = self.lines.clone();
        // Fails by time or with the task that connects; either way the last word is in the channel.
        let _ = tokio::time::timeout(CONNECTION_WAIT, lines.wait_for(Result::is_ok)).await;
        lines.borrow().clone()
    }
}

/// Keeps a line in `lines` until nobody looks there any more.
async fn keep_connected(mut supervisor: Supervisor, lines: watch::Sender<Result<Arc<Line>, Error>>) {
    loop {
        let connecting = supervisor.connect(|error| {
            lines.send_modify(|current| *current = Err(error.clone()));
        });
        let line = tokio::select! {
            line = connecting => Arc::new(line),
            () = lines.closed() => return,
        };
        let confirming = line.channel.confirm_select(ConfirmSelectOptions::default());
        let error = match step("asking for confirmations", confirming).await {
            Err(error) => error,
            Ok(()) => {
                lines.send_modify(|current| *current = Ok(Arc::clone(&line)));
                tokio::select! {
                    error = line.broken() => error,
                    () = lines.closed() => return line.close().await,
                }
            }
        };
        lines.send_modify(|current| *current = Err(error.clone()));
        // Whoever still publishes on the line is to learn of it now.
        line.sever();
        supervisor.lost(&error);
    }
}

/// Publishes on `line`; gives back what is confirmed, and what stood in the way of the rest.
async fn publish_on(line: &Line, jobs: &[JobId]) -> (Vec<JobId>, Option<Error>) {
    let mut outcomes = stream::iter(jobs.iter().copied()).map(|job| send(line, job)).buffer_unordered(IN_FLIGHT);
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
                line.condemn(&error);
                failure = Some(error);
                break;
            }
        }
    }
    if !returned.is_empty() {
        confirmed.retain(|job| !returned.contains(job));
        // The next line declares the queue again.
        let error = Error::unavailable("the queue is gone");
        line.condemn(&error);
        failure.get_or_insert(error);
    }
    (confirmed, failure)
}

/// Publishes one message and waits for what the broker says to it.
async fn send(line: &Line, job: JobId) -> Result<Outcome, Error> {
    let fail = |source| Error::broker("publishing", source);
    // `mandatory` makes the broker return what no queue takes, instead of dropping it with a confirmation.
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
    let sent = line
        .channel
        .basic_publish("".into(), line.queue().into(), options, &message::encode(line.installation(), job), properties)
        .await
        .map_err(fail)?;
    match sent.await.map_err(fail)? {
        Confirmation::Ack(None) => Ok(Outcome::Confirmed(job)),
        Confirmation::Ack(Some(stray)) | Confirmation::Nack(Some(stray)) => {
            // Confirmations can come in one for several messages, so the text says whose this one is.
            let returned = message::decode(&stray.delivery.data, line.installation()).unwrap_or(job);
            Ok(Outcome::Returned { confirmed: job, returned })
        }
        Confirmation::Nack(None) | Confirmation::NotRequested => Ok(Outcome::Refused),
    }
}

fn count(outcome: &'static str, jobs: usize) {
    counter!("pm_queue_published_total", "outcome" => outcome).increment(jobs as u64);
}
