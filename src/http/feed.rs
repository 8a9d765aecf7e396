//! The process's only reader of live events: polls the event table and broadcasts each serialized event to listeners.
//!
//! The reader runs only while there are listeners. A listener that falls behind reads the table itself, so slow clients
//! do not increase memory use.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use metrics::Gauge;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Error, EventPage, EventSignals},
    code::ErrorCode,
    domain::{Event, EventFilter, EventKind, EventPosition, ProductId, UserId},
    http::{problem::Problem, request::principal::Authentication},
};

/// Maximum number of events per query.
pub(in crate::http) const PAGE: u64 = 256;
/// Capacity of the broadcast channel in batches. A listener that lags further has to read the table.
const BATCHES: usize = 64;
/// Maximum number of listeners that read the table at a time.
const MAX_CONCURRENT_READS: usize = 4;
/// Delay before a read, so that events are read in batches.
///
/// Otherwise, each event would wake thousands of streams.
const BATCH_DELAY: Duration = Duration::from_millis(20);
/// First retry delay for events held back by an older transaction; doubles each time, up to the polling interval.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(25);
/// How long the reader continues without listeners, since clients reconnect soon.
const LINGER: Duration = Duration::from_secs(30);
const STREAMS: &str = "pm_event_streams";

/// Distributes events to listeners; cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    catalog: Catalog,
    authentication: Authentication,
    places: Arc<Semaphore>,
    most: usize,
    /// Number of open streams per client.
    by_client: Mutex<HashMap<String, usize>>,
    catching_up: Semaphore,
    stop: CancellationToken,
    tail: Mutex<Option<Tail>>,
    starting: tokio::sync::Mutex<()>,
    streams: Gauge,
}

/// The reader's position, where new listeners start.
struct Tail {
    batches: broadcast::Sender<Batch>,
    position: EventPosition,
}

/// Events from one query.
#[derive(Clone)]
pub(in crate::http) struct Batch {
    pub(in crate::http) frames: Arc<[Frame]>,
    pub(in crate::http) last: EventPosition,
}

/// A serialized event.
pub(in crate::http) struct Frame {
    pub(in crate::http) position: EventPosition,
    pub(in crate::http) kind: EventKind,
    pub(in crate::http) product_id: ProductId,
    user_id: UserId,
    pub(in crate::http) text: Bytes,
}

/// A listener's subscription to the feed.
pub(in crate::http) struct Subscription {
    pub(in crate::http) batches: broadcast::Receiver<Batch>,
    /// The channel delivers every event after this position.
    pub(in crate::http) position: EventPosition,
    pub(in crate::http) stop: CancellationToken,
}

/// A permit for one open stream; released on drop.
pub(in crate::http) struct Place {
    feed: Feed,
    client: String,
    _permit: OwnedSemaphorePermit,
}

/// A listener's credentials, checked again while the stream is open.
pub(in crate::http) struct Admission {
    feed: Feed,
    shown: HeaderMap,
}

impl Feed {
    /// Creates a feed for at most `most` streams; one client may open an eighth of them.
    ///
    /// Call this after the metrics recorder is installed, or the gauge of open streams is lost.
    pub fn new(catalog: Catalog, authentication: Authentication, most: usize) -> Self {
        metrics::describe_gauge!(STREAMS, metrics::Unit::Count, "Open event streams");
        Self(Arc::new(Shared {
            catalog,
            authentication,
            by_client: Mutex::default(),
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            most,
            catching_up: Semaphore::new(MAX_CONCURRENT_READS),
            stop: CancellationToken::new(),
            tail: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            streams: metrics::gauge!(STREAMS),
        }))
    }

    /// Ends all open streams and all later ones.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Takes a permit for a stream of `client`.
    ///
    /// # Errors
    /// 429 if the client reached its limit of open streams, 503 if the server did.
    pub(in crate::http) fn place(&self, client: String) -> Result<Place, Problem> {
        let Ok(permit) = Arc::clone(&self.0.places).try_acquire_owned() else {
            let cause = format!("all {} event streams of this server are in use", self.0.most);
            return Err(Problem::overloaded(cause));
        };
        let most = self.0.most.div_ceil(8);
        let mut by_client = self.by_client();
        let open = by_client.entry(client.clone()).or_default();
        if *open >= most {
            let detail = format!("a client may have at most {most} event streams open; close one first");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        *open += 1;
        drop(by_client);
        self.0.streams.increment(1.0);
        Ok(Place { feed: self.clone(), client, _permit: permit })
    }

    /// Returns the credentials in the headers; `None` if authentication is off.
    pub(in crate::http) fn admission(&self, headers: &HeaderMap) -> Option<Admission> {
        if self.0.authentication.is_off() {
            return None;
        }
        let shown = headers.get_all(header::AUTHORIZATION).iter().map(|value| (header::AUTHORIZATION, value.clone()));
        Some(Admission { feed: self.clone(), shown: shown.collect() })
    }

    fn by_client(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.by_client.lock()
    }

    /// Subscribes to every event committed from now on; starts the reader if it is not running.
    pub(in crate::http) async fn subscribe(&self) -> Result<Subscription, Error> {
        if let Some(subscription) = self.join() {
            return Ok(subscription);
        }
        let _starting = self.0.starting.lock().await;
        if let Some(subscription) = self.join() {
            return Ok(subscription);
        }
        // Subscribe to signals before reading the position, so that no event is missed.
        let signals = self.0.catalog.signals();
        let position = self.0.catalog.newest_event().await?;
        let (batches, receiver) = broadcast::channel(BATCHES);
        *self.tail() = Some(Tail { batches, position });
        tokio::spawn(follow(self.clone(), signals));
        Ok(Subscription { batches: receiver, position, stop: self.0.stop.clone() })
    }

    pub(in crate::http) async fn remembers_since(&self, position: EventPosition) -> Result<bool, Error> {
        self.0.catalog.remembers_since(position).await
    }

    /// Reads a page of events for a listener that is behind.
    pub(in crate::http) async fn page_after(&self, position: EventPosition) -> Result<EventPage, Error> {
        // The semaphore is never closed, so this does not fail.
        let _turn = self.0.catching_up.acquire().await;
        self.0.catalog.events_after(position, PAGE).await
    }

    /// Subscribes to the running reader, if any; the channel delivers every event after its position.
    fn join(&self) -> Option<Subscription> {
        let tail = self.tail();
        let (batches, position) = tail.as_ref().map(|tail| (tail.batches.subscribe(), tail.position))?;
        Some(Subscription { batches, position, stop: self.0.stop.clone() })
    }

    fn tail(&self) -> MutexGuard<'_, Option<Tail>> {
        self.0.tail.lock()
    }

    /// Reads a page of events and broadcasts it.
    async fn advance(&self) -> Result<EventPage, Error> {
        let after = self.tail().as_ref().map_or(EventPosition::START, |tail| tail.position);
        let page = self.0.catalog.events_after(after, PAGE).await?;
        if page.last != after
            && let Some(tail) = self.tail().as_mut()
        {
            tail.position = page.last;
            let frames: Arc<[Frame]> = page.events.iter().map(Frame::new).collect();
            // An error means that there are no listeners.
            let _ = tail.batches.send(Batch { frames, last: page.last });
        }
        Ok(page)
    }

    /// Stops the reader if there are no listeners.
    fn end_if_unused(&self) -> bool {
        let mut tail = self.tail();
        let unused = tail.as_ref().is_none_or(|tail| tail.batches.receiver_count() == 0);
        if unused {
            *tail = None;
        }
        unused
    }

    fn is_used(&self) -> bool {
        self.tail().as_ref().is_some_and(|tail| tail.batches.receiver_count() > 0)
    }
}

impl Frame {
    pub(in crate::http) fn new(event: &Event) -> Self {
        let (id, kind, data) = (event.position, event.kind, &event.data);
        Self {
            position: id,
            kind,
            product_id: event.product_id,
            user_id: event.user_id.clone(),
            text: format!("id: {id}\nevent: {}\ndata: {data}\n\n", kind.as_str()).into(),
        }
    }

    pub(in crate::http) fn is_wanted(&self, filter: &EventFilter) -> bool {
        filter.wants(self.kind, self.product_id, &self.user_id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.feed.0.streams.decrement(1.0);
        let mut by_client = self.feed.by_client();
        if let Some(open) = by_client.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

impl Admission {
    /// Whether the token or key was revoked or has expired. Returns false if that cannot be checked at the moment.
    pub(in crate::http) async fn is_over(&self) -> bool {
        let shared = &self.feed.0;
        let identified = shared.authentication.identify(&self.shown, &shared.catalog, async || Ok(())).await;
        identified.is_err_and(|problem| problem.is_unauthorized())
    }
}

/// Broadcasts events until the server stops, or has no listeners for [`LINGER`].
async fn follow(feed: Feed, mut signals: EventSignals) {
    let interval = signals.poll_interval();
    let (mut again, mut failing, mut used) = (FIRST_RETRY_DELAY, false, Instant::now());
    let stop = feed.0.stop.clone();
    loop {
        let pause = match feed.advance().await {
            Ok(page) if page.full => {
                again = FIRST_RETRY_DELAY;
                continue;
            }
            Ok(page) => {
                failing = false;
                again = if page.held_back { (again * 2).min(interval) } else { FIRST_RETRY_DELAY };
                if page.held_back { again } else { interval }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot read events from the database; retrying every second"
                    );
                }
                Duration::from_secs(1)
            }
        };
        if feed.is_used() {
            used = Instant::now();
        } else if used.elapsed() > LINGER && feed.end_if_unused() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(pause) => {}
            () = signals.next() => sleep(BATCH_DELAY).await,
        }
    }
    *feed.tail() = None;
}
