//! What systemd is told, where it started the process and wants to know: that it is ready, that it is alive, that it stops.
//! Without systemd nothing is told to anybody.

use std::future::pending;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use crate::stop::Stop;

/// Runs `work`, which is ready from now on and ends some time after `stop`.
pub(super) async fn run<T>(mut stop: Stop, work: impl Future<Output = T>) -> T {
    tell(NotifyState::Ready);
    let farewell = async {
        stop.wanted().await;
        tell(NotifyState::Stopping);
        pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = async { tokio::join!(farewell, give_signs_of_life()); } => unreachable!("neither of the two ever ends"),
    };
    // What has nothing to finish is over before the farewell has its turn; said twice it means the same.
    tell(NotifyState::Stopping);
    outcome
}

/// Twice in the time after which systemd takes the process for dead. That it comes to this says that tasks are run.
async fn give_signs_of_life() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return pending().await };
    let mut pulse = tokio::time::interval(limit / 2);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        tell(NotifyState::Watchdog);
    }
}

/// Costs one datagram to a socket of this machine.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how the process is");
    }
}
