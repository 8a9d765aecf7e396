//! A stream that completes hyper's own error responses with a problem body.
//!
//! hyper itself refuses a malformed head (400), a target that is too long (414) and a head that is too large (431),
//! with a status and an empty body.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream between hyper and an HTTP/1 client.
pub struct Explaining<S, F> {
    stream: S,
    explain: F,
    /// Whether the client has sent bytes since the last write. Only then can a write be the response to a head.
    heard: bool,
    /// The bytes of an explanation that are not written yet.
    left: Bytes,
}

impl<S: AsyncWrite + Unpin, F: FnMut(StatusCode) -> Option<Explanation> + Unpin> Explaining<S, F> {
    /// Wraps `stream`. `explain` returns the headers and body for a refusal with this status.
    ///
    /// It must return `None`, which leaves the bytes unchanged, while the server is sending a response.
    pub fn new(stream: S, explain: F) -> Self {
        Self { stream, explain, heard: false, left: Bytes::new() }
    }

    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.left.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Replaces a refusal by hyper with its explanation; returns `false` if `bytes` are something else.
    fn takes(&mut self, bytes: &[u8]) -> bool {
        if !std::mem::take(&mut self.heard) {
            return false;
        }
        let explained = refusal(bytes).and_then(|status| explained(bytes, &(self.explain)(status)?));
        self.left = explained.unwrap_or_default();
        self.left.has_remaining()
    }
}

/// The headers and body added to a refusal.
pub struct Explanation {
    /// The headers in addition to hyper's, without `Content-Length`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

const NO_BODY: &str = "content-length: 0\r\n";

/// Returns the status of a refusal by hyper: only a head, without the `x-request-id` of the server's responses.
fn refusal(bytes: &[u8]) -> Option<StatusCode> {
    const STATUSES: [StatusCode; 3] =
        [StatusCode::BAD_REQUEST, StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];
    let text = std::str::from_utf8(bytes).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let is_bare =
        text.find("\r\n\r\n") == Some(text.len() - 4) && text.contains(NO_BODY) && !text.contains("x-request-id");
    STATUSES.into_iter().find(|known| is_bare && known.as_str() == status)
}

fn explained(refusal: &[u8], explanation: &Explanation) -> Option<Bytes> {
    let Explanation { headers, body } = explanation;
    let mut lines = format!("content-length: {}\r\n", body.len());
    for (name, value) in headers {
        lines.push_str(&format!("{name}: {}\r\n", value.to_str().ok()?));
    }
    let whole = std::str::from_utf8(refusal).ok()?.replace(NO_BODY, &lines);
    Some([whole.as_bytes(), body].concat().into())
}

impl<S: AsyncRead + Unpin, F: Unpin> AsyncRead for Explaining<S, F> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.heard |= buffer.filled().len() > before;
        outcome
    }
}

impl<S, F> AsyncWrite for Explaining<S, F>
where
    S: AsyncWrite + Unpin,
    F: FnMut(StatusCode) -> Option<Explanation> + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_left(context))?;
        if this.takes(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_left(context))?;
        if let [only] = buffers
            && this.takes(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        this.heard = false;
        Pin::new(&mut this.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_left(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_left(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const REFUSAL: &[u8] =
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    /// Returns the bytes that a client receives after it has sent `sent`.
    async fn received(sent: &[u8], written: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(16);
        let explanation = |_| {
            let id = (HeaderName::from_static("x-request-id"), HeaderValue::from_static("r"));
            Some(Explanation { headers: HeaderMap::from_iter([id]), body: Bytes::from_static(b"{}") })
        };
        let mut stream = Explaining::new(server, explanation);
        client.write_all(sent).await.expect("sent");
        stream.read_exact(&mut vec![0; sent.len()]).await.expect("read");
        let (written, mut bytes) = (written.to_vec(), Vec::new());
        let writing = tokio::spawn(async move {
            stream.write_all(&written).await.expect("written");
            stream.flush().await.expect("flushed");
        });
        client.read_to_end(&mut bytes).await.expect("received");
        writing.await.expect("no panic");
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn a_refusal_by_hyper_gets_a_body_and_a_request_id() {
        let answer = received(b"GET", REFUSAL).await;
        assert_eq!(
            answer,
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 2\r\nx-request-id: r\r\n\r\n{}"
        );
    }

    #[tokio::test]
    async fn other_responses_pass_unchanged() {
        let own = b"HTTP/1.1 400 Bad Request\r\nx-request-id: a\r\ncontent-length: 0\r\n\r\n";
        for other in [&own[..], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"bytes of a file"] {
            assert_eq!(received(b"GET", other).await.as_bytes(), other);
        }
        assert_eq!(received(b"", REFUSAL).await.as_bytes(), REFUSAL, "part of a response, as the client sent nothing");
    }
}
