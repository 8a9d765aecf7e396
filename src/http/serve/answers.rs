//! Answers on their way to clients that may read slowly, or never. Every answer has to make progress; those that hold much
//! while they are read are bounded together, and the one that has been waited for longest makes room for others.
//!
//! Over HTTP/1.1 an answer that is given up ends its connection, over HTTP/2 its stream alone.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::http::{
    admission::{
        seats::{Busy, Seat},
        slots::{NoRoom, Room, Slot, Slots},
    },
    headers::forwarded::network_of,
    reply::Outgoing,
};

/// Less is not counted: it is sent as a whole, as soon as the client takes anything.
const COUNTED_BYTES: u64 = 4 << 10;
/// What a streamed answer holds in memory at a time.
const STREAMED_BYTES: usize = 64 << 10;
/// hyper keeps what it was given until the client takes it, so it is given this much at a time.
const PIECE_BYTES: usize = 16 << 10;
/// The last piece, which is out of sight once hyper has it.
const LAST_PIECE_BYTES: usize = 1 << 10;

tokio::task_local! {
    /// The stream of HTTP/2 that the task answers.
    static STREAM: Arc<StreamState>;
}

/// Bounds what unread answers hold; cheap to clone.
#[derive(Clone, Debug)]
pub struct Answers(Slots);

/// An answer's body that keeps its connection busy until its last byte was taken.
pub struct Held {
    body: Outgoing,
    /// Whether it is handed on in small pieces.
    cut: bool,
    /// What was read of the body and not handed on yet.
    rest: Bytes,
    is_over: bool,
    slot: Option<Slot>,
    stream: Option<Arc<StreamState>>,
    _busy: Busy,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How far a stream of HTTP/2 is.
#[derive(Debug)]
struct StreamState {
    made: Instant,
    /// When the client's turn to take something began, in milliseconds since the stream was made, plus one; 0 while it is not
    /// waited for.
    waits_since: AtomicU64,
    given_up: Arc<Notify>,
}

/// Runs each stream of HTTP/2 as a task of its own, until it has ended or its client takes nothing for too long.
#[derive(Clone, Copy, Debug)]
pub struct StreamExecutor {
    /// How long a client may take nothing of its answer.
    pub stall_limit: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let state = Arc::new(StreamState::new());
        let (watched, limit) = (Arc::clone(&state), self.stall_limit);
        // To drop a stream is to reset it.
        tokio::spawn(STREAM.scope(state, async move {
            tokio::select! {
                () = stream => {}
                () = watched.stalled(limit) => tracing::debug!(target: "pm::http", "a client does not read its answer"),
            }
        }));
    }
}

impl StreamState {
    fn new() -> Self {
        Self { made: Instant::now(), waits_since: AtomicU64::new(0), given_up: Arc::default() }
    }

    fn waits(&self) {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.waits_since.store(now, Ordering::Relaxed);
    }

    fn works(&self) {
        self.waits_since.store(0, Ordering::Relaxed);
    }

    /// Ends when the client has taken nothing for too long, or others need the room more.
    async fn stalled(&self, limit: Duration) {
        loop {
            let left = match self.waits_since.load(Ordering::Relaxed) {
                0 => limit,
                since => (self.made + Duration::from_millis(since) + limit).duration_since(Instant::now()),
            };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = self.given_up.notified() => return,
                () = sleep(left) => {}
            }
        }
    }
}

impl Answers {
    /// Room for so much that is unread.
    pub fn new(room: Room) -> Self {
        Self(Slots::new(room))
    }

    /// Room for an answer that holds so many bytes, for as long as its client reads it over the connection with this seat.
    ///
    /// # Errors
    /// [`NoRoom`] if there is none after a second.
    pub async fn slot(&self, bytes: usize, client: IpAddr, seat: &Seat) -> Result<Slot, NoRoom> {
        let lost = STREAM.try_with(|stream| Arc::clone(&stream.given_up)).unwrap_or_else(|_| seat.eviction());
        self.0.take(network_of(client), bytes, lost).await
    }
}

/// How many bytes `response` holds until it is read; `None` if they are so few that nobody counts them.
pub fn held_bytes(response: &Response<Outgoing>) -> Option<usize> {
    match response.body().size_hint().exact() {
        Some(bytes) if bytes <= COUNTED_BYTES => None,
        Some(bytes) => Some(usize::try_from(bytes).unwrap_or(usize::MAX)),
        // Streams of events have places of their own.
        None if is_endless(response) => None,
        None => Some(STREAMED_BYTES),
    }
}

fn is_endless(response: &Response<Outgoing>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream")
}

impl Held {
    /// `response`, which keeps its connection busy until it is read, and `slot` until it is given up.
    pub fn new(response: Response<Outgoing>, slot: Option<Slot>, busy: Busy) -> Response<Self> {
        let stream = STREAM.try_with(Arc::clone).ok();
        if let Some(stream) = &stream {
            stream.waits();
        }
        let cut = slot.is_some();
        response.map(|body| Self { body, cut, rest: Bytes::new(), is_over: false, slot, stream, _busy: busy })
    }

    fn waits(&self) {
        if let Some(slot) = &self.slot {
            slot.waits();
        }
        if let Some(stream) = &self.stream {
            stream.waits();
        }
    }

    fn works(&self) {
        if let Some(slot) = &self.slot {
            slot.works();
        }
        if let Some(stream) = &self.stream {
            stream.works();
        }
    }

    /// The next piece of what is there, over HTTP/2 a copy, so that the whole is not held by what waits inside of it. The last one
    /// is short: it is kept unwatched.
    fn piece(&mut self) -> Option<Bytes> {
        let length = match self.rest.len() {
            0 => return None,
            length if length > LAST_PIECE_BYTES => PIECE_BYTES.min(length - LAST_PIECE_BYTES),
            length => length,
        };
        let piece = self.rest.split_to(length);
        Some(if self.stream.is_some() { Bytes::copy_from_slice(&piece) } else { piece })
    }

    fn poll_pieces(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.cut {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        while self.rest.len() <= LAST_PIECE_BYTES && !self.is_over {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.is_over = true,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.rest = if self.rest.is_empty() { data } else { [&self.rest[..], &data[..]].concat().into() };
                }
            }
        }
        Poll::Ready(self.piece().map(|piece| Ok(Frame::data(piece))))
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.works();
        let frame = self.poll_pieces(context);
        if frame.is_ready() {
            self.waits();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && (self.is_over || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
