//! Handles Ctrl-C and SIGTERM: the first signal stops in order, the second ends the process.

use std::process;

use tokio_util::sync::CancellationToken;

use super::failure::{Exit, Failure};

/// Installs the signal handlers; the first signal cancels the returned token.
pub(super) fn listen() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        let mut signals = Signals::new();
        signals.next().await;
        stopper.cancel();
        signals.next().await;
        process::exit(Exit::Interrupted as i32);
    });
    stop
}

/// Runs `work` until a signal comes; `hint` then says how to continue.
pub(super) async fn unless_stopped<T>(
    stop: &CancellationToken,
    hint: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        outcome = work => outcome,
        () = stop.cancelled() => Err(Failure::interrupted(hint)),
    }
}

#[cfg(unix)]
struct Signals {
    terminate: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        // Without this handler SIGTERM ends the process at once, which is acceptable.
        Self { terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok() }
    }

    async fn next(&mut self) {
        match &mut self.terminate {
            Some(terminate) => tokio::select! {
                () = interrupt() => (),
                _ = terminate.recv() => (),
            },
            None => interrupt().await,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        interrupt().await;
    }
}

async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
