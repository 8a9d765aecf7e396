//! What happened to products, as listeners are told: written in the transaction of the change by one function, read in order
//! by whoever remembers a position, and kept for a day.

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
        events::{self, EventPage, FORGOTTEN_TOGETHER},
        products::touch::Touched,
    },
    domain::{EventData, EventKind, EventPosition, ImageId, NewEvent, Product, ProductId, UserId},
};

/// How long events are kept for listeners that come back.
pub const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Other processes are told at most this often; telling takes a lock on PostgreSQL that all of its databases share.
const TELLING_PAUSE: Duration = Duration::from_millis(20);
/// A database that is silent for longer is asked anew.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says within this process that something was written, and to the one who tells other processes.
#[derive(Debug, Default)]
pub(super) struct Happened {
    here: watch::Sender<()>,
    elsewhere: Notify,
}

/// A step of a picture that listeners are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PictureStep {
    pub(super) kind: EventKind,
    pub(super) product_id: ProductId,
    pub(super) image_id: ImageId,
    pub(super) error_code: Option<ErrorCode>,
}

/// Hears when there may be new events, in this process and, on PostgreSQL, in others.
#[derive(Debug)]
pub struct Happenings {
    here: watch::Receiver<()>,
    listening: Option<Listening>,
}

impl Happened {
    pub(super) fn signal(&self) {
        self.here.send_replace(());
        self.elsewhere.notify_one();
    }
}

impl Happenings {
    /// How long what is not heard may go unseen at most: who follows events looks this often by itself.
    pub const fn poll_interval(&self) -> Duration {
        match self.listening {
            Some(_) => Duration::from_secs(1),
            None => Duration::from_millis(250),
        }
    }

    /// Ends when something may have happened since the last time, which may have been nothing. Cancel-safe.
    pub async fn next(&mut self) {
        if self.here.changed().await.is_err() {
            // The catalogue is gone, and with it whoever would say so.
            std::future::pending::<()>().await;
        }
    }
}

impl Catalog {
    /// Hears of new events from now on. What other processes write to SQLite is not heard, only found by looking.
    pub fn happenings(&self) -> Happenings {
        let wake = self.0.happened.here.clone();
        let listening = notifications::listen(&self.database().read(), notifications::EVENTS, move || {
            wake.send_replace(());
        });
        Happenings { here: self.0.happened.here.subscribe(), listening }
    }

    /// Tells other processes of events that this one wrote since the last time; waits until there are some, and a moment
    /// more, so that many are told together. Whoever is not told finds them a moment later.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn tell_listeners(&self) -> Result<(), Error> {
        self.0.happened.elsewhere.notified().await;
        notifications::notify(&self.database().read(), notifications::EVENTS).await?;
        tokio::time::sleep(TELLING_PAUSE).await;
        Ok(())
    }

    /// Up to `limit` events after `after`, in the order in which all readers see them.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn events_after(&self, after: EventPosition, limit: u64) -> Result<EventPage, Error> {
        let read = self.database().read();
        match tokio::time::timeout(PATIENCE, events::page(&read, after, limit)).await {
            Ok(page) => Ok(page?),
            Err(late) => Err(Error::Unavailable { component: "database", source: Arc::new(late) }),
        }
    }

    /// The position after which nothing has happened yet.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn newest_event(&self) -> Result<EventPosition, Error> {
        Ok(events::newest(&self.database().read()).await?)
    }

    /// Whether every event after `position` is kept still, and `position` is one of this database.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn remembers_since(&self, position: EventPosition) -> Result<bool, Error> {
        let read = self.database().read();
        let Some(oldest) = events::oldest(&read).await? else { return Ok(position == EventPosition::START) };
        if position == EventPosition::START {
            // The first removal takes that many.
            return Ok(oldest.id.0 <= FORGOTTEN_TOGETHER);
        }
        Ok(oldest <= position && position <= events::newest(&read).await?)
    }

    /// Removes events that are older than [`KEPT`], up to 8,000 of them; answers how many. The latest 500 stay.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn forget_events(&self) -> Result<u64, Error> {
        const BATCHES: u32 = 16;
        let before = self.now().await?.minus(KEPT);
        let mut forgotten = 0;
        for _ in 0..BATCHES {
            // Looking costs no turn at writing.
            if events::outdated(&self.database().read(), before).await?.is_none() {
                break;
            }
            let write = self.database().begin().await?;
            forgotten += events::forget(&*write, before).await?;
            write.commit().await?;
        }
        Ok(forgotten)
    }
}

/// Writes events in the transaction of their change: the one way by which any comes to be.
pub(super) async fn record_events(write: &Write, events: &[NewEvent]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    events::insert(&**write, events).await?;
    webhooks::enqueue(write, events).await
}

/// What is told of products that changed: the steps of their pictures, or else that they were updated.
pub(super) fn of_change(touched: &[Touched], steps: &[PictureStep], now: Timestamp) -> Vec<NewEvent> {
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

/// What is told of a new product.
pub(super) fn of_creation(product: &Product) -> NewEvent {
    let mut event = event(EventKind::ProductCreated, product.id, &product.user_id, product.created_at);
    event.data.version = Some(product.version);
    event.data.status = Some(product.status.as_str());
    event
}

/// What is told of a product that is no more.
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
