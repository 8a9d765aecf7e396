//! A request's body that may be given up at any time. What the client still sends is then read and forgotten in the
//! background, so that its refusal is answered at once: a connection that is closed over unread bytes is reset, and the
//! reset can overtake the answer that says why.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Most bytes that are read and forgotten.
const MOST_BYTES: usize = 16 << 20;
/// The longest that bytes are waited for which nobody wants.
const LONGEST: Duration = Duration::from_secs(2);

/// A body that is read to its end, whether its handler wants to or not.
pub struct Received {
    /// `None` once it was given up.
    body: Option<Incoming>,
    /// Streams of HTTP/2 end one by one, without their connection.
    is_http1: bool,
    /// The client sends the body only when it is asked for.
    waits_to_be_asked: bool,
}

/// `request` with a body that may be given up.
pub fn received(request: Request<Incoming>) -> Request<Received> {
    let is_http1 = request.version() <= Version::HTTP_11;
    let waits_to_be_asked = waits_for_continue(request.headers());
    request.map(|body| Received { body: Some(body), is_http1, waits_to_be_asked })
}

/// Whether the client waits for a `100 Continue` before it sends its body, which asking for the body would send.
fn waits_for_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // To read is to ask.
        self.waits_to_be_asked = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && self.is_http1
            && !self.waits_to_be_asked
            && !body.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(LONGEST, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST_BYTES {
            break;
        }
    }
}
