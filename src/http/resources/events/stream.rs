//! A listener's event stream: live from the feed, or from the event table while the listener is behind.
//!
//! The listener has one position for both sources, so it sends each event once and in order.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep_until},
};

use crate::{
    catalog::Error,
    domain::{EventFilter, EventKind, EventPosition},
    http::feed::{Admission, Batch, Feed, Frame, Place, Subscription},
};

/// Maximum time between two writes, so that both sides detect a broken connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Interval between checks for revoked or expired credentials. A revocation reaches all processes within 5 s.
const CREDENTIAL_CHECK_INTERVAL: Duration = Duration::from_secs(4);
/// Maximum duration of a stream; then the client reconnects.
const MAX_STREAM_DURATION: Duration = Duration::from_secs(3_600);
/// Delay before a browser reconnects, in milliseconds.
const RETRY_MILLIS: u32 = 3_000;

/// The position at which a stream starts.
pub(super) enum Beginning {
    /// At the next event.
    Now,
    /// After this event.
    After(EventPosition),
    /// At the next event, after an event `reset`: earlier events are lost.
    Reset,
}

/// A client of the feed and its position.
pub(super) struct Listener {
    feed: Feed,
    filter: EventFilter,
    live: Subscription,
    /// All events up to here were sent or filtered out.
    position: EventPosition,
    behind: bool,
    over: bool,
    ready: VecDeque<Bytes>,
    next_beat: Instant,
    ends_at: Instant,
    admission: Option<Admission>,
    next_look: Instant,
    _place: Place,
}

impl Listener {
    pub(super) fn new(feed: Feed, filter: EventFilter, live: Subscription, beginning: Beginning, place: Place) -> Self {
        let now = live.position;
        let (position, opening) = match beginning {
            // An `id` without data is not an event. It gives the client a position before its first event.
            Beginning::Now => (now, format!("retry: {RETRY_MILLIS}\nid: {now}\n\n")),
            Beginning::After(position) => (position, format!("retry: {RETRY_MILLIS}\n\n")),
            Beginning::Reset => {
                let reason = "events after your last event id are no longer available; reload the products";
                let event = format!("id: {now}\nevent: reset\ndata: {{\"reason\":\"{reason}\"}}");
                (now, format!("retry: {RETRY_MILLIS}\n{event}\n\n"))
            }
        };
        Self {
            feed,
            filter,
            behind: position < live.position,
            live,
            position,
            over: false,
            ready: VecDeque::from([opening.into()]),
            next_beat: Instant::now() + HEARTBEAT,
            ends_at: Instant::now() + MAX_STREAM_DURATION,
            admission: None,
            next_look: Instant::now() + CREDENTIAL_CHECK_INTERVAL,
            _place: place,
        }
    }

    /// Sets the credentials; the stream ends when they are revoked or expire.
    pub(super) fn let_in_by(self, admission: Option<Admission>) -> Self {
        Self { admission, ..self }
    }

    /// Converts the listener to a stream.
    ///
    /// The stream ends when the server stops, the product is deleted, or the table cannot be read.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes, Infallible>> {
        stream::unfold(self, async |mut listener| listener.next().await.map(|piece| (Ok(piece), listener))).boxed()
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.is_sent_away().await {
                return None;
            }
            if let Some(piece) = self.ready.pop_front() {
                self.next_beat = Instant::now() + HEARTBEAT;
                return Some(piece);
            }
            if self.over || self.live.stop.is_cancelled() || self.ends_at <= Instant::now() {
                return None;
            }
            if self.behind {
                if let Err(error) = self.catch_up().await {
                    // The client reconnects and sends the id of its last event.
                    tracing::debug!(%error, "closing an event stream: the event table cannot be read");
                    return None;
                }
                continue;
            }
            tokio::select! {
                () = self.live.stop.cancelled() => return None,
                batch = self.live.batches.recv() => match batch {
                    Ok(batch) => self.take(&batch),
                    Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return None,
                },
                () = sleep_until(self.next_look), if self.admission.is_some() => {}
                () = sleep_until(self.next_beat) => {
                    // The heartbeat carries the position: a client that receives few events would otherwise reconnect
                    // with an id that has expired.
                    self.ready.push_back(format!(": still here\nid: {}\n\n", self.position).into());
                }
            }
        }
    }

    /// Checks every few seconds whether the credentials are still valid; returns true if not.
    async fn is_sent_away(&mut self) -> bool {
        let Some(admission) = &self.admission else { return false };
        if Instant::now() < self.next_look {
            return false;
        }
        self.next_look = Instant::now() + CREDENTIAL_CHECK_INTERVAL;
        admission.is_over().await
    }

    fn take(&mut self, batch: &Batch) {
        let seen = self.position;
        batch.frames.iter().filter(|frame| frame.position > seen).for_each(|frame| self.offer(frame));
        self.position = self.position.max(batch.last);
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        let page = self.feed.page_after(self.position).await?;
        page.events.iter().map(Frame::new).for_each(|frame| self.offer(&frame));
        self.position = page.last;
        self.behind = page.full;
        Ok(())
    }

    fn offer(&mut self, frame: &Frame) {
        if !self.over && frame.is_wanted(&self.filter) {
            self.ready.push_back(frame.text.clone());
        }
        self.over |= self.ends_with(frame);
    }

    /// Whether the stream ends with this event: a deleted product has no further events.
    fn ends_with(&self, frame: &Frame) -> bool {
        frame.kind == EventKind::ProductDeleted && self.filter.product_id == Some(frame.product_id)
    }
}
