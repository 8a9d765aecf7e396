//! A stream with time limits against slow clients.
//!
//! A write fails if the client reads nothing for a while. A read fails if a request's head takes too long.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::http::admission::connection_slots::ConnectionSlot;

/// A stream with time limits on writes and on a request's head.
pub struct Stalling<S> {
    stream: S,
    connection_slot: Arc<ConnectionSlot>,
    head_limit: Duration,
    limit: Duration,
    /// Runs only while a write is pending.
    timer: Option<Pin<Box<Sleep>>>,
    /// Runs only while the rest of a head is pending.
    head_timer: Option<Pin<Box<Sleep>>>,
    head_began: bool,
}

impl<S> Stalling<S> {
    /// Wraps `stream`.
    ///
    /// A write fails after `limit` without progress. A read fails `head_limit` after the first byte of a head, while
    /// the connection waits only for that head.
    pub fn new(stream: S, connection_slot: Arc<ConnectionSlot>, head_limit: Duration, limit: Duration) -> Self {
        Self { stream, connection_slot, head_limit, limit, timer: None, head_timer: None, head_began: false }
    }

    /// Applies the time limit to a write: a pending write starts the timer, and progress stops it.
    fn limited<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.timer = None;
            return outcome;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(context));
        timer.as_mut().reset(Instant::now() + limit);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read its response in time")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        if !this.connection_slot.waits_for_head() {
            this.head_began = false;
            this.head_timer = None;
        } else if outcome.is_ready() {
            this.head_began |= buffer.filled().len() > before;
        } else if this.head_began {
            let limit = this.head_limit;
            let timer = this.head_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a request's head took too long")));
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.limited(outcome, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, buffers);
        this.limited(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(context);
        this.limited(outcome, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_shutdown(context);
        this.limited(outcome, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_write_to_a_client_that_does_not_read_times_out() {
        let (mut unread, stream) = tokio::io::duplex(16);
        let mut stalling = Stalling::new(stream, ConnectionSlot::for_tests(), Duration::MAX, Duration::from_millis(20));
        let error = stalling.write_all(&[0; 64]).await.expect_err("the client does not read");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        unread.read_exact(&mut [0; 16]).await.expect("what was written before");
    }

    #[tokio::test]
    async fn a_client_that_keeps_reading_receives_all_bytes() {
        let (mut reader, stream) = tokio::io::duplex(16);
        let mut stalling = Stalling::new(stream, ConnectionSlot::for_tests(), Duration::MAX, Duration::from_secs(60));
        let write = async move { stalling.write_all(&[7; 1_000]).await };
        let mut bytes = vec![0; 1_000];
        let (written, read) = tokio::join!(write, reader.read_exact(&mut bytes));
        assert!(written.is_ok() && read.is_ok());
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
