//! Limits for responses to clients that read slowly or not at all.
//!
//! Every response must make progress. Large responses share a limit on count and bytes; when it is reached, the server
//! aborts the response that has waited longest for its client. That closes the connection over HTTP/1.1 and resets the
//! stream over HTTP/2.

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
        body_permits::{BodyPermit, BodyPermits, NoRoom, Room},
        connection_slots::{ConnectionSlot, RequestGuard},
    },
    headers::forwarded::network_of,
    reply::Outgoing,
};

/// Smaller responses are not counted: they are sent in one piece.
const COUNTED_BYTES: u64 = 4 << 10;
/// Memory that a streamed response is counted with.
const STREAMED_BYTES: usize = 64 << 10;
/// Size of the pieces that hyper gets and buffers.
const PIECE_BYTES: usize = 16 << 10;
/// Size of the last piece. Its progress cannot be observed once hyper has it.
const LAST_PIECE_BYTES: usize = 1 << 10;

tokio::task_local! {
    /// The HTTP/2 stream that the task serves.
    static STREAM: Arc<StreamState>;
}

/// Limits the memory of unread responses; cheap to clone.
#[derive(Clone, Debug)]
pub struct Answers(BodyPermits);

/// A response body that counts as a request in progress until the client has read it.
pub struct Held {
    body: Outgoing,
    /// Whether the body is passed on in small pieces.
    cut: bool,
    /// Bytes read from the body and not passed on yet.
    rest: Bytes,
    is_over: bool,
    /// Size of the last piece, which the client has read when hyper asks for another one.
    last_piece: usize,
    /// Whether hyper has a piece.
    has_begun: bool,
    slot: Option<BodyPermit>,
    stream: Option<Arc<StreamState>>,
    _request: RequestGuard,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The progress of an HTTP/2 stream.
#[derive(Debug)]
struct StreamState {
    made: Instant,
    /// Start of the current wait for the client; 0 if not waiting.
    ///
    /// In milliseconds since the stream was created, plus one.
    waits_since: AtomicU64,
    given_up: Arc<Notify>,
}

/// Runs each HTTP/2 stream as a task, until it ends or its client stalls.
#[derive(Clone, Copy, Debug)]
pub struct StreamExecutor {
    /// How long a client may read nothing of its response.
    pub stall_limit: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let state = Arc::new(StreamState::new());
        let (watched, limit) = (Arc::clone(&state), self.stall_limit);
        // Dropping a stream resets it.
        tokio::spawn(STREAM.scope(state, async move {
            tokio::select! {
                () = stream => {}
                () = watched.stalled(limit) => tracing::debug!(target: "pm::http", "an HTTP/2 client stalled"),
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

    /// Waits until the client stalls for `limit`, or the response loses its permit.
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
    /// Creates the limits for unread responses.
    pub fn new(room: Room) -> Self {
        Self(BodyPermits::new(room))
    }

    /// Takes a permit for a response of this size; waits up to a second.
    ///
    /// # Errors
    /// [`NoRoom`] after that second.
    pub async fn slot(
        &self,
        bytes: usize,
        client: IpAddr,
        connection_slot: &ConnectionSlot,
    ) -> Result<BodyPermit, NoRoom> {
        let lost =
            STREAM.try_with(|stream| Arc::clone(&stream.given_up)).unwrap_or_else(|_| connection_slot.eviction());
        self.0.take(network_of(client), bytes, lost).await
    }
}

/// Returns the bytes that an unread response occupies; `None` if it is too small to count.
pub fn held_bytes(response: &Response<Outgoing>) -> Option<usize> {
    match response.body().size_hint().exact() {
        Some(bytes) if bytes <= COUNTED_BYTES => None,
        Some(bytes) => Some(usize::try_from(bytes).unwrap_or(usize::MAX)),
        // Event streams have their own permits.
        None if is_endless(response) => None,
        None => Some(STREAMED_BYTES),
    }
}

fn is_endless(response: &Response<Outgoing>) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream")
}

impl Held {
    /// Wraps `response`; its body holds `slot` and `request`.
    pub fn new(response: Response<Outgoing>, slot: Option<BodyPermit>, request: RequestGuard) -> Response<Self> {
        let stream = STREAM.try_with(Arc::clone).ok();
        if let Some(stream) = &stream {
            stream.waits();
        }
        let cut = slot.is_some();
        response.map(|body| Self {
            body,
            cut,
            rest: Bytes::new(),
            is_over: false,
            last_piece: 0,
            has_begun: false,
            slot,
            stream,
            _request: request,
        })
    }

    fn waits(&self) {
        if let Some(slot) = &self.slot {
            slot.waits();
        }
        if let Some(stream) = &self.stream {
            stream.waits();
        }
    }

    fn works(&mut self) {
        if let Some(slot) = &self.slot {
            slot.works(std::mem::take(&mut self.last_piece));
        }
        if let Some(stream) = &self.stream {
            stream.works();
        }
    }

    /// Returns the next piece of the buffered bytes.
    ///
    /// Over HTTP/2 the piece is a copy, so that a queued piece does not keep the whole buffer alive. The last piece is
    /// short, because its progress cannot be observed.
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
        match &frame {
            Poll::Ready(frame) => {
                self.last_piece = match frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                    _ => 0,
                };
                self.has_begun = true;
                self.waits();
            }
            // While the next bytes are read from storage, the client reads the earlier ones. If it does not, hyper does
            // not ask for the next bytes when they are there.
            Poll::Pending => {
                if let Some(slot) = self.slot.as_ref().filter(|_| self.has_begun) {
                    slot.waits();
                }
            }
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
