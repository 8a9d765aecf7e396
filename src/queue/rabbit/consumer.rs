//! One worker's supervised consumer: takes messages from the broker in the background and hands them on one by one.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Acker,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions},
    types::FieldTable,
};
use metrics::counter;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{debug, error, warn};

use super::{Error, Role, STEP_LIMIT, Target, line::Line, step, supervisor::Supervisor};
use crate::{
    domain::InstallationId,
    queue::{
        Delivery, Next,
        message::{self, Unreadable},
    },
};

/// Closing a consumer takes at most this long.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How often a worker asks the database should the task behind its consumer ever end by itself.
const FALLBACK_INTERVAL: Duration = Duration::from_secs(1);

/// The queue itself is broken if it takes no consumer on this many connections in a row, though the broker answers.
const UNANSWERED_LIMIT: u32 = 3;

/// The messages of one consumer; dropping it stops consuming.
pub(in crate::queue) struct Deliveries {
    /// Without a bound of its own: the broker gives out `prefetch` messages a connection and no more.
    inbox: mpsc::UnboundedReceiver<Delivery>,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Deliveries {
    pub(in crate::queue::rabbit) fn start(target: Arc<Target>, prefetch: u16) -> Self {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(());
        let supervisor = Supervisor::new(target, Role::Worker);
        let task = tokio::spawn(keep_consuming(supervisor, prefetch, outbox, stopped));
        Self { inbox, stop, task }
    }

    pub(in crate::queue) async fn next(&mut self) -> Next {
        loop {
            match self.inbox.recv().await {
                // The connection of the others is gone: the broker gives them out again.
                Some(delivery) if !delivery.receipt.is_void() => return Next::Job(delivery),
                Some(_) => {}
                None => {
                    tokio::time::sleep(FALLBACK_INTERVAL).await;
                    return Next::Due;
                }
            }
        }
    }

    pub(in crate::queue) async fn close(mut self) {
        drop(self.stop);
        if tokio::time::timeout(CLOSE_LIMIT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// The right to settle one message, once.
#[derive(Debug)]
pub(in crate::queue) struct Receipt(Acker);

impl Receipt {
    pub(in crate::queue) async fn ack(self) {
        settle("acknowledge", self.0.ack(BasicAckOptions::default())).await;
    }

    pub(in crate::queue) async fn requeue(self) {
        settle("requeue", self.0.nack(back_to_the_queue())).await;
    }

    /// Whether there is nothing to settle any more.
    fn is_void(&self) -> bool {
        !self.0.usable()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.0.usable() {
            // One poll hands the frame to the connection; nobody is left to wait for its way to the broker.
            let _ = self.0.nack(back_to_the_queue()).now_or_never();
        }
    }
}

/// Consumes on one line after the other until it is told to stop, or nobody takes the messages.
async fn keep_consuming(
    mut supervisor: Supervisor,
    prefetch: u16,
    outbox: mpsc::UnboundedSender<Delivery>,
    mut stopped: watch::Receiver<()>,
) {
    let mut unanswered = 0;
    loop {
        let line = tokio::select! {
            line = supervisor.connect(|_| {}) => line,
            _ = stopped.changed() => return,
        };
        let error = tokio::select! {
            outcome = consume(&line, prefetch, &outbox, &mut unanswered) => match outcome { Err(error) => error },
            _ = stopped.changed() => return line.close().await,
        };
        supervisor.lost(&error);
    }
}

/// Hands on what comes until the line breaks. A queue that has left too many consumers without an answer is replaced.
async fn consume(
    line: &Line,
    prefetch: u16,
    outbox: &mpsc::UnboundedSender<Delivery>,
    unanswered: &mut u32,
) -> Result<std::convert::Infallible, Error> {
    if *unanswered >= UNANSWERED_LIMIT {
        *unanswered = 0;
        line.replace_queue().await?;
    }
    let mut messages = begin(line, prefetch).await.inspect_err(|error| {
        if error.is_silence() {
            *unanswered += 1;
        }
    })?;
    *unanswered = 0;
    let mut broken = pin!(line.broken());
    loop {
        let message = tokio::select! {
            biased;
            error = &mut broken => return Err(error),
            message = messages.next() => message,
        };
        match message {
            Some(Ok(message)) => hand_on(line, message, outbox).await?,
            Some(Err(source)) => return Err(Error::broker("consuming", source)),
            None => return Err(Error::unavailable("the broker ended the consumer")),
        }
    }
}

async fn begin(line: &Line, prefetch: u16) -> Result<lapin::Consumer, Error> {
    step("setting the prefetch", line.channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consuming = line.channel.basic_consume(
        line.queue().into(),
        // The broker chooses a tag.
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    step("starting to consume", consuming).await
}

async fn hand_on(
    line: &Line,
    message: lapin::message::Delivery,
    outbox: &mpsc::UnboundedSender<Delivery>,
) -> Result<(), Error> {
    match message::decode(&message.data, line.installation()) {
        Ok(job_id) => {
            // If nobody takes it, it goes back to the queue as it is dropped.
            let _ = outbox.send(Delivery { job_id, receipt: Receipt(message.acker) });
            Ok(())
        }
        Err(Unreadable::Foreign(owner)) => leave_to_owner(line, message, &owner).await,
        Err(error) => {
            counter!("pm_queue_unreadable_total").increment(1);
            warn!(error = %error, size_bytes = message.data.len(), "set an unreadable message aside");
            set_aside(message).await
        }
    }
}

/// Refuses a job of another installation: its message goes to that one's queue, or is set aside where there is none.
async fn leave_to_owner(line: &Line, message: lapin::message::Delivery, owner: &InstallationId) -> Result<(), Error> {
    counter!("pm_queue_foreign_total").increment(1);
    let own = line.installation();
    match line.hand_to_owner(owner, &message.data).await {
        Ok(()) => {
            error!(%owner, %own, "refused a message of installation {owner} and handed it to that one's queue");
            step("settling a foreign message", message.acker.ack(BasicAckOptions::default())).await.map(|_| ())
        }
        Err(reason) => {
            error!(%owner, %own, %reason, "refused a message of installation {owner} and set it aside");
            set_aside(message).await
        }
    }
}

/// Rejects without requeue: the queue's arguments send the message to the queue for unreadable ones.
async fn set_aside(message: lapin::message::Delivery) -> Result<(), Error> {
    let rejecting = message.acker.reject(BasicRejectOptions { requeue: false });
    step("setting an unreadable message aside", rejecting).await.map(|_| ())
}

/// Waits for `work`, which is allowed to fail: the broker gives out again what was not settled.
async fn settle(what: &'static str, work: impl Future<Output = lapin::Result<bool>>) {
    match tokio::time::timeout(STEP_LIMIT, work).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => debug!("cannot {what} a message: its connection was replaced"),
        Ok(Err(error)) => debug!(error = %error, "cannot {what} a message"),
        Err(_) => debug!("cannot {what} a message in time"),
    }
}

fn back_to_the_queue() -> BasicNackOptions {
    BasicNackOptions { requeue: true, ..BasicNackOptions::default() }
}
