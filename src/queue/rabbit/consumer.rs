//! The supervised consumer of one worker: receives messages in the background and returns them one by one.

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

use super::{Error, Role, STEP_LIMIT, Target, connection::BrokerConnection, step, supervisor::Supervisor};
use crate::{
    domain::InstallationId,
    queue::{
        Delivery, Next,
        message::{self, Unreadable},
    },
};

/// Timeout for closing a consumer.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Interval of database queries if the consumer's task ever ends by itself.
const FALLBACK_INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive connections without an accepted consumer after which the queue counts as broken.
const UNANSWERED_LIMIT: u32 = 3;

/// The messages of one consumer; dropping it stops consuming.
pub(in crate::queue) struct Deliveries {
    /// Unbounded, since the broker sends at most `prefetch` messages per connection.
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
                // Other messages belong to a lost connection: the broker redelivers them.
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

    /// Returns whether there is nothing left to settle.
    fn is_void(&self) -> bool {
        !self.0.usable()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.0.usable() {
            // A single poll passes the frame to the connection; there is no caller to wait for its delivery.
            let _ = self.0.nack(back_to_the_queue()).now_or_never();
        }
    }
}

/// Consumes on one connection after another until stopped.
/// It also ends if the receiver is dropped.
async fn keep_consuming(
    mut supervisor: Supervisor,
    prefetch: u16,
    outbox: mpsc::UnboundedSender<Delivery>,
    mut stopped: watch::Receiver<()>,
) {
    let mut unanswered = 0;
    loop {
        let connection = tokio::select! {
            connection = supervisor.connect(|_| {}) => connection,
            _ = stopped.changed() => return,
        };
        let error = tokio::select! {
            outcome = consume(&connection, prefetch, &outbox, &mut unanswered) => match outcome { Err(error) => error },
            _ = stopped.changed() => return connection.close().await,
        };
        supervisor.lost(&error);
    }
}

/// Forwards messages until the connection fails.
/// A queue that did not answer too many consumers is replaced.
async fn consume(
    connection: &BrokerConnection,
    prefetch: u16,
    outbox: &mpsc::UnboundedSender<Delivery>,
    unanswered: &mut u32,
) -> Result<std::convert::Infallible, Error> {
    if *unanswered >= UNANSWERED_LIMIT {
        *unanswered = 0;
        connection.replace_queue().await?;
    }
    let mut messages = begin(connection, prefetch).await.inspect_err(|error| {
        if error.is_silence() {
            *unanswered += 1;
        }
    })?;
    *unanswered = 0;
    let mut broken = pin!(connection.broken());
    loop {
        let message = tokio::select! {
            biased;
            error = &mut broken => return Err(error),
            message = messages.next() => message,
        };
        match message {
            Some(Ok(message)) => hand_on(connection, message, outbox).await?,
            Some(Err(source)) => return Err(Error::broker("consuming", source)),
            None => return Err(Error::QueueGone("the broker canceled the consumer")),
        }
    }
}

async fn begin(connection: &BrokerConnection, prefetch: u16) -> Result<lapin::Consumer, Error> {
    step("setting the prefetch", connection.channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consuming = connection.channel.basic_consume(
        connection.queue().into(),
        // The broker chooses the consumer tag.
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    step("starting to consume", consuming).await
}

async fn hand_on(
    connection: &BrokerConnection,
    message: lapin::message::Delivery,
    outbox: &mpsc::UnboundedSender<Delivery>,
) -> Result<(), Error> {
    match message::decode(&message.data, connection.installation()) {
        Ok(job_id) => {
            // If the receiver is gone, the message returns to the queue when it is dropped.
            let _ = outbox.send(Delivery { job_id, receipt: Receipt(message.acker) });
            Ok(())
        }
        Err(Unreadable::Foreign(owner)) => leave_to_owner(connection, message, &owner).await,
        Err(error) => {
            counter!("pm_queue_unreadable_total").increment(1);
            warn!(error = %error, size_bytes = message.data.len(), "moved a message to the queue for unreadable messages");
            set_aside(message).await
        }
    }
}

/// Rejects a message of another installation.
/// Forwards it to that installation's queue, or moves it to the queue for unreadable messages.
async fn leave_to_owner(
    connection: &BrokerConnection,
    message: lapin::message::Delivery,
    owner: &InstallationId,
) -> Result<(), Error> {
    counter!("pm_queue_foreign_total").increment(1);
    let own = connection.installation();
    match connection.hand_to_owner(owner, &message.data).await {
        Ok(()) => {
            error!(%owner, %own, "forwarded a message of installation {owner} to its queue");
            step("acknowledging a forwarded message", message.acker.ack(BasicAckOptions::default())).await.map(|_| ())
        }
        Err(reason) => {
            error!(%owner, %own, %reason, "rejected a message of installation {owner}, which has no queue here");
            set_aside(message).await
        }
    }
}

/// Rejects a message without requeue: the queue's arguments dead-letter it to the queue for unreadable ones.
async fn set_aside(message: lapin::message::Delivery) -> Result<(), Error> {
    let rejecting = message.acker.reject(BasicRejectOptions { requeue: false });
    step("rejecting an unreadable message", rejecting).await.map(|_| ())
}

/// Waits for `work` and ignores its failure: the broker redelivers unsettled messages.
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
