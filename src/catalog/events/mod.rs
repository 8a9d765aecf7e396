//! Events of products.
//!
//! [`record_events`] writes events in the transaction of their change. Readers resume from a position and read events
//! in order. Events are kept for a day.

pub(crate) mod webhook_secrets;
mod webhook_tags;
pub(crate) mod webhooks;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Write,
        connection::notifications::{self, Listening},
        events::{self, DELETE_BATCH_ROWS, EventPage},
        products::touch::Touched,
    },
    domain::{EventData, EventKind, EventPosition, ImageId, NewEvent, Product, ProductId, UserId},
};

/// Retention of events, for readers that reconnect.
pub const EVENT_RETENTION: Duration = Duration::from_secs(24 * 3_600);
/// Minimum time between notifications. `NOTIFY` takes a lock that all databases of a PostgreSQL server share.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(20);
/// Limit of a read of events; the caller then reads again.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Signals new events to readers in this process and to the event notifier.
#[derive(Debug, Default)]
pub(super) struct EventSignal {
    here: watch::Sender<()>,
    elsewhere: Notify,
}

/// A change of an image's status that is published as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageProgress {
    pub(super) kind: EventKind,
    pub(super) product_id: ProductId,
    pub(super) image_id: ImageId,
    pub(super) error_code: Option<ErrorCode>,
}

/// Receives signals of new events from this process and, on PostgreSQL, from other processes.
#[derive(Debug)]
pub struct EventSignals {
    here: watch::Receiver<()>,
    listening: Option<Listening>,
}

impl EventSignal {
    pub(super) fn signal(&self) {
        self.here.send_replace(());
        self.elsewhere.notify_one();
    }
}

impl EventSignals {
    /// Returns how often readers poll for events that were not signaled.
    pub const fn poll_interval(&self) -> Duration {
        match self.listening {
            Some(_) => Duration::from_secs(1),
            None => Duration::from_millis(250),
        }
    }

    /// Waits until there may be new events. Cancel-safe.
    pub async fn next(&mut self) {
        if self.here.changed().await.is_err() {
            // The catalog was dropped, so no signal will follow.
            std::future::pending::<()>().await;
        }
    }
}

impl Catalog {
    /// Subscribes to signals of new events.
    ///
    /// On SQLite, events of other processes are not signaled; readers find them by polling.
    pub fn signals(&self) -> EventSignals {
        let wake = self.0.event_signal.here.clone();
        let listening = notifications::listen(&self.database().read(), notifications::EVENTS, move || {
            wake.send_replace(());
        });
        EventSignals { here: self.0.event_signal.here.subscribe(), listening }
    }

    /// Waits until this process has written events, then notifies other processes.
    ///
    /// Pauses afterwards, so one notification covers many events. Processes that miss a notification find the events by
    /// polling.
    pub async fn notify_listeners(&self) -> Result<(), Error> {
        self.0.event_signal.elsewhere.notified().await;
        notifications::notify(&self.database().read(), notifications::EVENTS).await?;
        tokio::time::sleep(NOTIFY_INTERVAL).await;
        Ok(())
    }

    /// Returns up to `limit` events after the position `after`, in the same order for all readers.
    pub async fn events_after(&self, after: EventPosition, limit: u64) -> Result<EventPage, Error> {
        let read = self.database().read();
        match tokio::time::timeout(READ_TIMEOUT, events::page(&read, after, limit)).await {
            Ok(page) => Ok(page?),
            Err(late) => Err(Error::Unavailable { component: "database", source: Arc::new(late) }),
        }
    }

    /// Returns the position of the newest event.
    pub async fn newest_event(&self) -> Result<EventPosition, Error> {
        Ok(events::newest(&self.database().read()).await?)
    }

    /// Whether all events after `position` still exist and `position` belongs to this database.
    pub async fn remembers_since(&self, position: EventPosition) -> Result<bool, Error> {
        let read = self.database().read();
        let Some(oldest) = events::oldest(&read).await? else { return Ok(position == EventPosition::START) };
        if position == EventPosition::START {
            // The first deletion removes this many events.
            return Ok(oldest.id.0 <= DELETE_BATCH_ROWS);
        }
        Ok(oldest <= position && position <= events::newest(&read).await?)
    }

    /// Deletes events older than [`EVENT_RETENTION`], at most 8,000; returns how many.
    ///
    /// The latest 500 events stay.
    pub async fn delete_expired_events(&self) -> Result<u64, Error> {
        const BATCHES: u32 = 16;
        let before = self.now().await?.minus(EVENT_RETENTION);
        let mut deleted = 0;
        for _ in 0..BATCHES {
            // A read does not take the write lock.
            if events::outdated(&self.database().read(), before).await?.is_none() {
                break;
            }
            let write = self.database().begin().await?;
            deleted += events::delete_expired(&*write, before).await?;
            write.commit().await?;
        }
        Ok(deleted)
    }
}

/// Writes events in the transaction of their change; no other function writes events.
pub(super) async fn record_events(write: &Write, events: &[NewEvent]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    events::insert(&**write, events).await?;
    webhooks::enqueue(write, events).await
}

/// Returns the events of changed products: those of their images, otherwise `product.updated`.
pub(super) fn of_change(touched: &[Touched], steps: &[ImageProgress], now: Timestamp) -> Vec<NewEvent> {
    let mut events = Vec::with_capacity(touched.len());
    for product in touched {
        let (version, status) = (Some(product.version), Some(product.status.as_str()));
        let before = events.len();
        for step in steps.iter().filter(|step| step.product_id == product.id) {
            let mut event = event(step.kind, product.id, &product.user_id, now);
            event.image_id = Some(step.image_id);
            let error_code = step.error_code.map(ErrorCode::as_str);
            event.data = EventData { image_id: Some(step.image_id), version, status, error_code, ..event.data };
            events.push(event);
        }
        if events.len() == before {
            let mut event = event(EventKind::ProductUpdated, product.id, &product.user_id, now);
            event.data = EventData { version, status, ..event.data };
            events.push(event);
        }
    }
    events
}

/// Returns the event of a new product.
pub(super) fn of_creation(product: &Product) -> NewEvent {
    let mut event = event(EventKind::ProductCreated, product.id, &product.user_id, product.created_at);
    event.data.version = Some(product.version);
    event.data.status = Some(product.status.as_str());
    event
}

/// Returns the event of a deleted product.
pub(super) fn of_deletion(product_id: ProductId, user_id: &UserId, now: Timestamp) -> NewEvent {
    event(EventKind::ProductDeleted, product_id, user_id, now)
}

fn event(kind: EventKind, product_id: ProductId, user_id: &UserId, now: Timestamp) -> NewEvent {
    let user_id = user_id.clone();
    let data = EventData {
        product_id,
        user_id: user_id.clone(),
        image_id: None,
        version: None,
        status: None,
        error_code: None,
    };
    NewEvent { kind, product_id, image_id: None, user_id, data, created_at: now }
}
