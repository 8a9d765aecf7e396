//! Notifies systemd that the process is ready, alive or stopping.
//!
//! Without systemd this module does nothing.

use std::future::pending;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Runs `work`, and notifies systemd that it is ready, and later that it is stopping.
pub(super) async fn run<T>(stop: CancellationToken, work: impl Future<Output = T>) -> T {
    notify(NotifyState::Ready);
    let stopping = async {
        stop.cancelled().await;
        notify(NotifyState::Stopping);
        pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = async { tokio::join!(stopping, notify_watchdog()); } => unreachable!("neither future ends"),
    };
    // Work may end before the notification above is sent. Sending it twice is harmless.
    notify(NotifyState::Stopping);
    outcome
}

/// Notifies the watchdog twice per time limit, which proves that the runtime still runs tasks.
async fn notify_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return pending().await };
    let mut pulse = tokio::time::interval(limit / 2);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        notify(NotifyState::Watchdog);
    }
}

/// Sends a state to systemd: one datagram to a local socket.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
