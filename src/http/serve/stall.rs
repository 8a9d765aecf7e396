//! A socket whose writes fail once the other side has taken nothing for a while, so that a client that never reads its
//! answer does not keep its connection for ever; and whose reads fail if a request's head takes too long once it has begun.

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

use crate::http::admission::seats::Seat;

/// A stream with a time limit on each wait for the other side to take bytes, and on the rest of a head.
pub struct Stalling<S> {
    stream: S,
    seat: Arc<Seat>,
    head_limit: Duration,
    limit: Duration,
    /// Runs only while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
    /// Runs only while the rest of a head is waited for.
    head_timer: Option<Pin<Box<Sleep>>>,
    head_began: bool,
}

impl<S> Stalling<S> {
    /// Gives up writing to `stream` after `limit` without any progress, and reading from it `head_limit` after the first byte
    /// of a head, while that is all that is waited for by this seat.
    pub fn new(stream: S, seat: Arc<Seat>, head_limit: Duration, limit: Duration) -> Self {
        Self { stream, seat, head_limit, limit, timer: None, head_timer: None, head_began: false }
    }

    /// Passes a write's outcome on; one that waits starts the timer, and one that made progress stops it.
    fn limited<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.timer = None;
            return outcome;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(context));
        timer.as_mut().reset(Instant::now() + limit);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        if !this.seat.waits_for_head() {
            this.head_began = false;
            this.head_timer = None;
        } else if outcome.is_ready() {
            this.head_began |= buffer.filled().len() > before;
        } else if this.head_began {
            let limit = this.head_limit;
            let timer = this.head_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a request's head was not finished")));
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
    async fn a_write_that_nobody_reads_fails_in_the_end() {
        let (mut unread, stream) = tokio::io::duplex(16);
        let mut stalling = Stalling::new(stream, Seat::for_tests(), Duration::MAX, Duration::from_millis(20));
        let error = stalling.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        unread.read_exact(&mut [0; 16]).await.expect("what was written before");
    }

    #[tokio::test]
    async fn a_reader_that_goes_on_reading_gets_everything() {
        let (mut reader, stream) = tokio::io::duplex(16);
        let mut stalling = Stalling::new(stream, Seat::for_tests(), Duration::MAX, Duration::from_secs(60));
        let write = async move { stalling.write_all(&[7; 1_000]).await };
        let mut bytes = vec![0; 1_000];
        let (written, read) = tokio::join!(write, reader.read_exact(&mut bytes));
        assert!(written.is_ok() && read.is_ok());
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
