//! One connection with one channel on which both queues are declared: it works, or it is thrown away as a whole.

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
    dial::{self, Lifeline},
    step,
};
use crate::domain::{Backlog, InstallationId};

/// How often a connection that seems well is asked for a sign of life.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(10);

/// Saying goodbye may take this long before the socket is shut.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Before the broker deletes a queue by force it waits for the queue itself.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// How often the broker may give a message out again. Attempts are counted in the database, so this is as good as no
/// limit; leaving it out means 20 since RabbitMQ 4.0, and `-1` is refused by those before.
const DELIVERY_LIMIT: i32 = 1_000_000;

/// Unreadable messages that are kept; the oldest goes first.
const MAX_UNREADABLE: i32 = 10_000;

/// A queue that no process has used for a week is deleted by the broker: its installation has another id by now, or is no
/// more. Messages are hints, so nothing is lost with it.
const UNUSED_QUEUE_EXPIRES_MS: i32 = 7 * 24 * 3_600 * 1_000;

/// A connection that is set up.
pub(super) struct Line {
    pub(super) channel: Channel,
    target: Arc<Target>,
    names: Names,
    connection: Connection,
    events: Mutex<Box<dyn Stream<Item = Event> + Send + Unpin>>,
    condemned: watch::Sender<Option<Error>>,
    lifeline: Lifeline,
}

impl Line {
    /// Connects, opens the channel and declares the queues.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the step that failed; nothing of the attempt is left.
    pub(super) async fn open(target: Arc<Target>, role: Role) -> Result<Self, Error> {
        let (connection, lifeline) = dial::connect(&target.uri, role).await?;
        let events = Mutex::new(Box::new(connection.events_listener()) as Box<_>);
        let channel = step("opening a channel", connection.create_channel()).await?;
        let names = target.names();
        declare(&channel, &names).await?;
        Ok(Self { channel, target, names, connection, events, condemned: watch::Sender::new(None), lifeline })
    }

    /// The name of the queue that jobs go through.
    pub(super) fn queue(&self) -> &str {
        &self.names.queue
    }

    /// The installation whose messages go through the queue.
    pub(super) fn installation(&self) -> &InstallationId {
        &self.names.installation
    }

    /// Publishes a message of another installation to that one's queue, if the broker has it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no such queue, or the broker does not confirm.
    pub(super) async fn hand_to_owner(&self, owner: &InstallationId, message: &[u8]) -> Result<(), Error> {
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        step("asking for confirmations", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let queue = self.target.queue_of(owner);
        let publishing = channel.basic_publish("".into(), queue.into(), options, message, properties);
        let confirmation = step("handing a message to its owner", publishing).await?;
        match step("handing a message to its owner", confirmation).await? {
            Confirmation::Ack(None) => Ok(()),
            _ => Err(Error::unavailable("the owner has no queue at this broker")),
        }
    }

    /// Waits until the line cannot be used any more, and says why. Asks the broker every 10 s whether it is.
    pub(super) async fn broken(&self) -> Error {
        let mut events = self.events.lock().await;
        let mut condemned = self.condemned.subscribe();
        let mut rounds = tokio::time::interval_at(tokio::time::Instant::now() + WATCHDOG_INTERVAL, WATCHDOG_INTERVAL);
        loop {
            if !self.connection.status().connected() || !self.channel.status().connected() {
                return Error::unavailable("the connection is gone");
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Error(source)) => return Error::broker("the connection broke", source),
                    Some(_) => {}
                    None => return Error::unavailable("the connection is gone"),
                },
                error = verdict(&mut condemned) => return error,
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

    /// Gives the line up for `reason`: its supervisor replaces it.
    pub(super) fn condemn(&self, reason: &Error) {
        self.condemned.send_replace(Some(reason.clone()));
    }

    /// Asks for the length of the queue on a channel of its own.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; a queue that is gone condemns the line, so that the next one declares it again.
    pub(super) async fn backlog(&self) -> Result<Backlog, Error> {
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        let backlog = self.measure(&channel).await;
        if let Err(error) = &backlog {
            self.condemn(error);
        }
        backlog
    }

    /// Tries everything that this process needs of the broker, on a channel of its own: declares the queues, publishes a
    /// message that fits no queue, and, if it `consumes`, asks for a message and gives it back.
    ///
    /// A connection that was made earlier goes on when a permission is taken away, until something needs it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the broker's words; a queue that is gone condemns the line.
    pub(super) async fn try_rights(&self, consumes: bool) -> Result<(), Error> {
        self.backlog().await?;
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        declare(&channel, &self.names).await?;
        step("asking for confirmations", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        try_publishing(&channel, &format!("{}.nowhere", self.names.queue)).await?;
        if consumes {
            try_reading(&channel, &self.names.queue).await?;
        }
        step("closing a channel", channel.close(200, "done".into())).await
    }

    /// Deletes the queue unless somebody consumes from it by now; the next line declares it anew. The messages that go with
    /// it were only hints: the sweeper finds their jobs in the database and lets them be sent again.
    ///
    /// A broker that was killed within seconds of making a quorum queue can come back with the queue's name and nobody
    /// behind it. It goes on answering declarations, by an empty queue, and no other request ever again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it was deleted or could not be: nothing more can be done on this line.
    pub(super) async fn replace_queue(&self) -> Result<(), Error> {
        // A broker that gives no answer has not said that nobody consumes.
        if self.backlog().await?.consumers > 0 {
            return Ok(());
        }
        tracing::warn!(
            queue = self.names.queue,
            "the broker answers, but its queue takes no consumers; it is deleted and declared again"
        );
        let channel = step("opening a channel", self.connection.create_channel()).await?;
        let deleting = channel.queue_delete(self.names.queue.as_str().into(), QueueDeleteOptions::default());
        match tokio::time::timeout(DELETE_LIMIT, deleting).await {
            Ok(Ok(_)) => Err(Error::unavailable("the queue took no consumers and was deleted")),
            Ok(Err(source)) => Err(Error::broker("deleting a queue that takes no consumers", source)),
            Err(_) => Err(Error::unavailable("deleting a queue that takes no consumers")),
        }
    }

    /// Parts from the broker in peace, within 2 s; what is not settled goes back to the queue.
    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.connection.close(200, "closing".into())).await;
        self.sever();
    }

    /// Shuts the socket down whatever the other side does.
    pub(super) fn sever(&self) {
        self.lifeline.cut();
    }

    /// A passive declare: fails, and ends `channel`, if the queue is gone.
    async fn measure(&self, channel: &Channel) -> Result<Backlog, Error> {
        let asked = channel.queue_declare(
            self.names.queue.as_str().into(),
            QueueDeclareOptions::durable().passive(),
            FieldTable::default(),
        );
        let queue = step("asking for the queue", asked).await?;
        Ok(Backlog { ready: queue.message_count().into(), consumers: queue.consumer_count().into() })
    }
}

/// Waits until the line is given up, and says why.
async fn verdict(condemned: &mut watch::Receiver<Option<Error>>) -> Error {
    match condemned.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(reason)) => reason.clone(),
        Ok(None) | Err(_) => Error::unavailable("the connection was given up"),
    }
}

/// Publishes a message that no queue takes: the broker returns it, or refuses it for lack of a permission.
async fn try_publishing(channel: &Channel, nowhere: &str) -> Result<(), Error> {
    const PUBLISHING: &str = "publishing";
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sending = channel.basic_publish("".into(), nowhere.into(), options, &[], BasicProperties::default());
    step(PUBLISHING, async { sending.await?.await }).await.map(|_| ())
}

/// Takes a message from the queue, if there is one, and gives it back.
async fn try_reading(channel: &Channel, queue: &str) -> Result<(), Error> {
    let asking = channel.basic_get(queue.into(), BasicGetOptions { no_ack: false });
    if let Some(message) = step("reading from the queue", asking).await? {
        let giving_back = message.delivery.acker.reject(BasicRejectOptions { requeue: true });
        step("giving a message back", giving_back).await?;
    }
    Ok(())
}

/// Declares the queue of jobs, and the one for unreadable messages.
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

/// A queue that survives the loss of a broker, where there are several.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}
