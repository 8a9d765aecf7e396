//! One listener's stream: live from the feed while it keeps up, from the table while it does not. Its place among the events
//! is one position, so whichever way an event comes, it is sent once and in order.

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

use super::feed::{Admission, Batch, Feed, Frame, Place, Subscription};
use crate::{
    catalog::Error,
    domain::{EventFilter, EventKind, EventPosition},
};

/// Something is sent at least this often, so that neither side keeps a connection that is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often it is looked whether a token or key was taken back or has expired. A process knows of it within 5 s.
const LOOK_AGAIN: Duration = Duration::from_secs(4);
/// A stream ends after this, and its client comes back.
const LONGEST: Duration = Duration::from_secs(3_600);
/// How long a browser waits before it connects again.
const RETRY_MILLIS: u32 = 3_000;

/// Where a stream begins.
pub(super) enum Beginning {
    /// With what happens next.
    Now,
    /// After this event.
    After(EventPosition),
    /// With what happens next, and a word that something before it is not known any more.
    Reset,
}

/// Who listens, and how far they are.
pub(super) struct Listener {
    feed: Feed,
    filter: EventFilter,
    live: Subscription,
    /// All up to here were sent or not wanted.
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
            // An `id` alone is no event: it tells a client that is cut off before its first one where it was.
            Beginning::Now => (now, format!("retry: {RETRY_MILLIS}\nid: {now}\n\n")),
            Beginning::After(position) => (position, format!("retry: {RETRY_MILLIS}\n\n")),
            Beginning::Reset => {
                let reason = "what happened since the last event that you saw is not known any more: read anew";
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
            ends_at: Instant::now() + LONGEST,
            admission: None,
            next_look: Instant::now() + LOOK_AGAIN,
            _place: place,
        }
    }

    /// The same listener, which is sent away when what it showed holds no longer.
    pub(super) fn let_in_by(self, admission: Option<Admission>) -> Self {
        Self { admission, ..self }
    }

    /// What is sent, until the server stops, the product is deleted, or the table cannot be read.
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
            if self.over || self.live.stop.is_wanted() || self.ends_at <= Instant::now() {
                return None;
            }
            if self.behind {
                if let Err(error) = self.catch_up().await {
                    // The client comes back with the last event that it saw.
                    tracing::debug!(%error, "a stream of events ends, for the table cannot be read");
                    return None;
                }
                continue;
            }
            tokio::select! {
                () = self.live.stop.wanted() => return None,
                batch = self.live.batches.recv() => match batch {
                    Ok(batch) => self.take(&batch),
                    Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return None,
                },
                () = sleep_until(self.next_look), if self.admission.is_some() => {}
                () = sleep_until(self.next_beat) => {
                    // With the position: who wants few events would else come back with one that is long forgotten.
                    self.ready.push_back(format!(": still here\nid: {}\n\n", self.position).into());
                }
            }
        }
    }

    /// Looks every few seconds whether the listener may still listen.
    async fn is_sent_away(&mut self) -> bool {
        let Some(admission) = &self.admission else { return false };
        if Instant::now() < self.next_look {
            return false;
        }
        self.next_look = Instant::now() + LOOK_AGAIN;
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

    /// After its deletion nothing happens to a product any more.
    fn ends_with(&self, frame: &Frame) -> bool {
        frame.kind == EventKind::ProductDeleted && self.filter.product_id == Some(frame.product_id)
    }
}
