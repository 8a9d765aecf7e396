//! Request bodies that the server may stop reading at any time.
//!
//! The remaining bytes are then read and discarded in the background, so that the client receives the error response:
//! closing a connection with unread bytes resets it, and the reset can arrive before the response.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Maximum number of bytes to discard.
const MAX_BYTES: usize = 16 << 20;
/// Maximum time to read bytes that are discarded.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A body whose unread rest is discarded on drop.
pub struct Received {
    /// `None` once the body was dropped.
    body: Option<Incoming>,
    /// False for HTTP/2, where a stream can be reset without closing the connection.
    is_http1: bool,
    /// The client waits for `100 Continue` before it sends the body.
    waits_to_be_asked: bool,
}

/// Wraps the body of `request`.
pub fn received(request: Request<Incoming>) -> Request<Received> {
    let is_http1 = request.version() <= Version::HTTP_11;
    let waits_to_be_asked = waits_for_continue(request.headers());
    request.map(|body| Received { body: Some(body), is_http1, waits_to_be_asked })
}

/// Whether the client waits for `100 Continue`. Reading the body would send it.
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
        // Reading makes hyper send `100 Continue`.
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
            runtime.spawn(tokio::time::timeout(DRAIN_TIMEOUT, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MAX_BYTES {
            break;
        }
    }
}
