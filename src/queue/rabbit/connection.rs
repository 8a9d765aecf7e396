//! A connection with one channel and both queues declared; after any error it is replaced as a whole.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Event,
    options::{
        BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::sync::{Mutex, watch};

use super::{
    Error, Names, Role, Target,
    connect::{self, ConnectionGuard},
    step,
};
use crate::domain::{Backlog, InstallationId};

/// Interval of liveness checks on an open connection.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(10);

/// Timeout of a graceful close before the socket is shut down.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Timeout for deleting a queue; the broker first waits for the queue itself.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// Maximum redeliveries of a message, in effect unlimited: attempts are counted in the database.
/// Without a value RabbitMQ 4.0 and later use 20, and earlier versions reject `-1`.
const DELIVERY_LIMIT: i32 = 1_000_000;

/// Maximum messages in the queue for unreadable ones; the oldest are dropped first.
const MAX_UNREADABLE: i32 = 10_000;

/// Time after which the broker deletes an unused queue: one week.
/// Its installation has another id by then, or no longer exists. Messages are hints, so nothing is lost.
const UNUSED_QUEUE_EXPIRES_MS: i32 = 7 * 24 * 3_600 * 1_000;

/// An open connection with declared queues.
pub(super) struct BrokerConnection {
    pub(super) channel: Channel,
    target: Arc<Target>,
    names: Names,
    connection: Connection,
    events: Mutex<Box<dyn Stream<Item = Event> + Send + Unpin>>,
    failure: watch::Sender<Option<Error>>,
    guard: ConnectionGuard,
}

impl BrokerConnection {
    /// Connects, opens the channel and declares the queues.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the step that failed; the connection is closed.
    pub(super) async fn open(target: Arc<Target>, role: Role) -> Result<Self, Error> {
        let (connection, guard) = connect::connect(&target.uri, role).await?;
        let events = Mutex::new(Box::new(connection.events_listener()) as Box<_>);
        let channel = step("opening a channel", connection.create_channel()).await?;
        let names = target.names();
        declare(&channel, &names).await?;
        Ok(Self { channel, target, names, connection, events, failure: watch::Sender::new(None), guard })
    }

    /// Returns the name of the job queue.
    pub(super) fn queue(&self) -> &str {
        &self.names.queue
    }

    /// Returns the installation that the queue belongs to.
    pub(super) fn installation(&self) -> &InstallationId {
        &self.names.installation
    }

    /// Forwards a message of another installation to that installation's queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the queue does not exist, or the broker does not confirm.
    pub(super) async fn hand_to_owner(&self, owner: &InstallationId, message: &[u8]) -> Result<(), Error> {
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        step("enabling publisher confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let queue = self.target.queue_of(owner);
        let publishing = channel.basic_publish("".into(), queue.into(), options, message, properties);
        let confirmation = step("forwarding a message to its installation", publishing).await?;
        match step("forwarding a message to its installation", confirmation).await? {
            Confirmation::Ack(None) => Ok(()),
            _ => Err(Error::unavailable("the message's installation has no queue at this broker")),
        }
    }

    /// Waits until the connection is unusable, and returns the reason. Checks it every 10 s.
    pub(super) async fn broken(&self) -> Error {
        let mut events = self.events.lock().await;
        let mut failure = self.failure.subscribe();
        let mut rounds = tokio::time::interval_at(tokio::time::Instant::now() + WATCHDOG_INTERVAL, WATCHDOG_INTERVAL);
        loop {
            if !self.connection.status().connected() || !self.channel.status().connected() {
                return Error::unavailable("the connection is closed");
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Error(source)) => return Error::broker("the connection broke", source),
                    Some(_) => {}
                    None => return Error::unavailable("the connection is closed"),
                },
                error = failure_reason(&mut failure) => return error,
                () = self.target.renamed(&self.names.installation) => {
                    return Error::Renamed;
                }
                _ = rounds.tick() => {
                    if let Err(error) = self.measure(&self.channel).await {
                        return error;
                    }
                }
            }
        }
    }

    /// Marks the connection as unusable for `reason`: its supervisor replaces it.
    pub(super) fn mark_unusable(&self, reason: &Error) {
        self.failure.send_replace(Some(reason.clone()));
    }

    /// Returns the length of the queue, using a separate channel.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; if the queue is gone, the connection is replaced, which declares it again.
    pub(super) async fn backlog(&self) -> Result<Backlog, Error> {
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        let backlog = self.measure(&channel).await;
        if let Err(error) = &backlog {
            self.mark_unusable(error);
        }
        backlog
    }

    /// Tests this process's permissions at the broker, on a separate channel.
    /// It declares the queues and publishes a message that no queue accepts. If the process `consumes`, it also gets a
    /// message and returns it.
    ///
    /// An open connection keeps working after a permission is revoked, until an operation needs it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the broker's text; if the queue is gone, the connection is replaced.
    pub(super) async fn try_rights(&self, consumes: bool) -> Result<(), Error> {
        self.backlog().await?;
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        declare(&channel, &self.names).await?;
        step("enabling publisher confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        try_publishing(&channel, &format!("{}.nowhere", self.names.queue)).await?;
        if consumes {
            try_reading(&channel, &self.names.queue).await?;
        }
        step("closing a channel", channel.close(200, "done".into())).await
    }

    /// Deletes the queue unless it has a consumer; the next connection declares it again.
    /// Its messages were only hints: the sweeper finds their jobs in the database and lets them be published again.
    ///
    /// A broker that was killed within seconds of creating a quorum queue can come back with the queue's name but
    /// without its process. It then reports an empty queue to declarations and never answers other requests.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the queue was deleted or could not be: the connection is unusable.
    pub(super) async fn replace_queue(&self) -> Result<(), Error> {
        // If the broker does not answer, the queue may still have consumers.
        if self.backlog().await?.consumers > 0 {
            return Ok(());
        }
        tracing::warn!(
            queue = self.names.queue,
            "the broker answers but its queue accepts no consumers; deleting and declaring it again"
        );
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        let deleting = channel.queue_delete(self.names.queue.as_str().into(), QueueDeleteOptions::default());
        match tokio::time::timeout(DELETE_LIMIT, deleting).await {
            Ok(Ok(_)) => Err(Error::QueueGone("the queue accepted no consumers and was deleted")),
            Ok(Err(source)) => Err(Error::broker("deleting a queue that accepts no consumers", source)),
            Err(_) => Err(Error::unavailable("deleting a queue that accepts no consumers")),
        }
    }

    /// Closes the connection gracefully within 2 s; unsettled messages return to the queue.
    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.connection.close(200, "closing".into())).await;
        self.abort();
    }

    /// Shuts the socket down at once.
    pub(super) fn abort(&self) {
        self.guard.cut();
    }

    /// Measures the queue by a passive declare; if the queue is gone, it fails and closes `channel`.
    async fn measure(&self, channel: &Channel) -> Result<Backlog, Error> {
        let asked = channel.queue_declare(
            self.names.queue.as_str().into(),
            QueueDeclareOptions::durable().passive(),
            FieldTable::default(),
        );
        let queue = step("reading the queue's length", asked).await?;
        Ok(Backlog { ready: queue.message_count().into(), consumers: queue.consumer_count().into() })
    }
}

/// Waits until the connection is marked unusable, and returns the reason.
async fn failure_reason(failure: &mut watch::Receiver<Option<Error>>) -> Error {
    match failure.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(reason)) => reason.clone(),
        Ok(None) | Err(_) => Error::unavailable("the connection was dropped"),
    }
}

/// Publishes a message that no queue accepts: the broker returns it, or rejects it for a missing permission.
async fn try_publishing(channel: &Channel, nowhere: &str) -> Result<(), Error> {
    const PUBLISHING: &str = "publishing";
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sending = channel.basic_publish("".into(), nowhere.into(), options, &[], BasicProperties::default());
    step(PUBLISHING, async { sending.await?.await }).await.map(|_| ())
}

/// Gets a message from the queue, if there is one, and returns it.
async fn try_reading(channel: &Channel, queue: &str) -> Result<(), Error> {
    let asking = channel.basic_get(queue.into(), BasicGetOptions { no_ack: false });
    if let Some(message) = step("reading from the queue", asking).await? {
        let giving_back = message.delivery.acker.reject(BasicRejectOptions { requeue: true });
        step("returning a message", giving_back).await?;
    }
    Ok(())
}

/// Declares the job queue and the queue for unreadable messages.
async fn declare(channel: &Channel, names: &Names) -> Result<(), Error> {
    let mut arguments = quorum();
    arguments.insert("x-expires".into(), AMQPValue::LongInt(UNUSED_QUEUE_EXPIRES_MS));
    let mut bounded = arguments.clone();
    bounded.insert("x-max-length".into(), AMQPValue::LongInt(MAX_UNREADABLE));
    bounded.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    step(
        "declaring the queue for unreadable messages",
        channel.queue_declare(names.unreadable.as_str().into(), QueueDeclareOptions::durable(), bounded),
    )
    .await?;
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(names.unreadable.as_str().into()));
    step(
        "declaring the queue",
        channel.queue_declare(names.queue.as_str().into(), QueueDeclareOptions::durable(), arguments),
    )
    .await?;
    Ok(())
}

/// Returns the arguments of a replicated quorum queue.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}
