//! The one reader of events in this process. It follows the table and hands each event, written out once, to all who listen.
//! It reads only while somebody does, and whoever falls behind reads the table alone: nothing here grows with slow clients.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use metrics::Gauge;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::{Instant, sleep},
};

use crate::{
    catalog::{Catalog, Error, EventPage, Happenings},
    code::ErrorCode,
    domain::{Event, EventFilter, EventKind, EventPosition, ProductId, UserId},
    http::{problem::Problem, request::caller::Authentication},
    stop::{self, Stop, Stopper},
};

/// Events that are read together.
pub(super) const PAGE: u64 = 256;
/// Batches that wait for the slowest listener before it has to read the table.
const BATCHES: usize = 64;
/// Listeners that read the table at a time.
const CATCHING_UP: usize = 4;
/// Events of this span reach listeners together, so that many small ones do not wake thousands of streams one by one.
const GATHER: Duration = Duration::from_millis(20);
/// How soon to look again for events that wait for an older transaction; doubles each time, up to the interval of looking.
const HELD_BACK: Duration = Duration::from_millis(25);
/// The reader goes on for so long without listeners, for one who comes right back.
const LINGER: Duration = Duration::from_secs(30);
const STREAMS: &str = "pm_event_streams";

/// Where listeners get their events from; cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    catalog: Catalog,
    authentication: Authentication,
    places: Arc<Semaphore>,
    most: usize,
    /// How many streams each client has open.
    by_client: Mutex<HashMap<String, usize>>,
    catching_up: Semaphore,
    stopper: Stopper,
    stop: Stop,
    tail: Mutex<Option<Tail>>,
    starting: tokio::sync::Mutex<()>,
    streams: Gauge,
}

/// How far the reader is; who joins begins here.
struct Tail {
    batches: broadcast::Sender<Batch>,
    position: EventPosition,
}

/// Events that were read together.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) frames: Arc<[Frame]>,
    pub(super) last: EventPosition,
}

/// An event as it goes over the wire.
pub(super) struct Frame {
    pub(super) position: EventPosition,
    pub(super) kind: EventKind,
    pub(super) product_id: ProductId,
    user_id: UserId,
    pub(super) text: Bytes,
}

/// A listener's end of the feed.
pub(super) struct Subscription {
    pub(super) batches: broadcast::Receiver<Batch>,
    /// Every event after this one comes by.
    pub(super) position: EventPosition,
    pub(super) stop: Stop,
}

/// A stream's share of those that may be open; given back when dropped.
pub(super) struct Place {
    feed: Feed,
    client: String,
    _permit: OwnedSemaphorePermit,
}

/// What a listener showed to be let in, which is looked at again while it listens.
pub(super) struct Admission {
    feed: Feed,
    shown: HeaderMap,
}

impl Feed {
    /// A feed for at most `most` streams, an eighth of them of one client, whose listeners are let in by `authentication`. Made after the recorder of figures, or its figure goes nowhere.
    pub fn new(catalog: Catalog, authentication: Authentication, most: usize) -> Self {
        let (stopper, stop) = stop::channel();
        metrics::describe_gauge!(STREAMS, metrics::Unit::Count, "Open streams of events");
        Self(Arc::new(Shared {
            catalog,
            authentication,
            by_client: Mutex::default(),
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            most,
            catching_up: Semaphore::new(CATCHING_UP),
            stopper,
            stop,
            tail: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            streams: metrics::gauge!(STREAMS),
        }))
    }

    /// Ends all streams, and those that begin from now on.
    pub fn stop(&self) {
        self.0.stopper.stop();
    }

    /// # Errors
    /// 429 if this client has as many streams open as it may, 503 if all together have.
    pub(super) fn place(&self, client: String) -> Result<Place, Problem> {
        let Ok(permit) = Arc::clone(&self.0.places).try_acquire_owned() else {
            let cause = format!("{} streams of events are open already", self.0.most);
            return Err(Problem::unavailable(ErrorCode::Unavailable, cause));
        };
        let most = self.0.most.div_ceil(8);
        let mut by_client = self.by_client();
        let open = by_client.entry(client.clone()).or_default();
        if *open >= most {
            let detail = format!("a client may have {most} streams of events open; close one first");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        *open += 1;
        drop(by_client);
        self.0.streams.increment(1.0);
        Ok(Place { feed: self.clone(), client, _permit: permit })
    }

    /// What a request with these headers showed; `None` if nothing has to be shown.
    pub(super) fn admission(&self, headers: &HeaderMap) -> Option<Admission> {
        if self.0.authentication.is_off() {
            return None;
        }
        let shown = headers.get_all(header::AUTHORIZATION).iter().map(|value| (header::AUTHORIZATION, value.clone()));
        Some(Admission { feed: self.clone(), shown: shown.collect() })
    }

    fn by_client(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the reader, which begins to read if it does not yet: every event that is committed from now on comes by.
    pub(super) async fn subscribe(&self) -> Result<Subscription, Error> {
        if let Some(subscription) = self.join() {
            return Ok(subscription);
        }
        let _starting = self.0.starting.lock().await;
        if let Some(subscription) = self.join() {
            return Ok(subscription);
        }
        // Heard from before the position is known, so that nothing falls in between.
        let happenings = self.0.catalog.happenings();
        let position = self.0.catalog.newest_event().await?;
        let (batches, receiver) = broadcast::channel(BATCHES);
        *self.tail() = Some(Tail { batches, position });
        tokio::spawn(follow(self.clone(), happenings));
        Ok(Subscription { batches: receiver, position, stop: self.0.stop.clone() })
    }

    pub(super) async fn remembers_since(&self, position: EventPosition) -> Result<bool, Error> {
        self.0.catalog.remembers_since(position).await
    }

    /// A page for a listener that is behind.
    pub(super) async fn page_after(&self, position: EventPosition) -> Result<EventPage, Error> {
        // Never closed, so the turn comes.
        let _turn = self.0.catching_up.acquire().await;
        self.0.catalog.events_after(position, PAGE).await
    }

    /// Whoever joins sees everything after the position that stands beside the channel.
    fn join(&self) -> Option<Subscription> {
        let tail = self.tail();
        let (batches, position) = tail.as_ref().map(|tail| (tail.batches.subscribe(), tail.position))?;
        Some(Subscription { batches, position, stop: self.0.stop.clone() })
    }

    fn tail(&self) -> MutexGuard<'_, Option<Tail>> {
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a page and hands it out.
    async fn advance(&self) -> Result<EventPage, Error> {
        let after = self.tail().as_ref().map_or(EventPosition::START, |tail| tail.position);
        let page = self.0.catalog.events_after(after, PAGE).await?;
        if page.last != after
            && let Some(tail) = self.tail().as_mut()
        {
            tail.position = page.last;
            let frames: Arc<[Frame]> = page.events.iter().map(Frame::new).collect();
            // An error means that nobody listens.
            let _ = tail.batches.send(Batch { frames, last: page.last });
        }
        Ok(page)
    }

    /// Ends the reader unless somebody listens.
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
    pub(super) fn new(event: &Event) -> Self {
        let (id, kind, data) = (event.position, event.kind, &event.data);
        Self {
            position: id,
            kind,
            product_id: event.product_id,
            user_id: event.user_id.clone(),
            text: format!("id: {id}\nevent: {}\ndata: {data}\n\n", kind.as_str()).into(),
        }
    }

    pub(super) fn is_wanted(&self, filter: &EventFilter) -> bool {
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
    /// Whether the token or key was taken back or has expired. Where that cannot be known for the moment, it was not.
    pub(super) async fn is_over(&self) -> bool {
        let shared = &self.feed.0;
        let identified = shared.authentication.identify(&self.shown, &shared.catalog, async || Ok(())).await;
        identified.is_err_and(|problem| problem.is_unauthorized())
    }
}

/// Reads on until the server stops or nobody has listened for a while.
async fn follow(feed: Feed, mut happenings: Happenings) {
    let interval = happenings.poll_interval();
    let (mut again, mut failing, mut used) = (HELD_BACK, false, Instant::now());
    let mut stop = feed.0.stop.clone();
    loop {
        let pause = match feed.advance().await {
            Ok(page) if page.full => {
                again = HELD_BACK;
                continue;
            }
            Ok(page) => {
                failing = false;
                again = if page.held_back { (again * 2).min(interval) } else { HELD_BACK };
                if page.held_back { again } else { interval }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "events cannot be read; it is tried again"
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
            () = stop.wanted() => break,
            () = sleep(pause) => {}
            () = happenings.next() => sleep(GATHER).await,
        }
    }
    *feed.tail() = None;
}
