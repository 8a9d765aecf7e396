//! Counts how often other processes chose another Redis server.
//!
//! Two processes with different servers must not take the cache from each other repeatedly.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Maximum pause before a repeatedly displaced process chooses its server again.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Counts how often this process's server was displaced.
#[derive(Debug, Default)]
pub(super) struct Displaced(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    times: u32,
    last: Option<Instant>,
}

impl Displaced {
    /// Records that another process chose another server.
    pub(super) fn note(&self) {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| last.elapsed() > MAX_PAUSE) {
            state.times = 0;
        }
        state.times = state.times.saturating_add(1);
        state.last = Some(Instant::now());
    }

    /// Returns whether this process may choose its own server.
    /// The first time it may at once, then after increasing pauses.
    pub(super) fn may_choose(&self) -> bool {
        let state = self.0.lock();
        let pause = match state.times {
            0 | 1 => Duration::ZERO,
            times => Duration::from_secs(1 << times.min(6)).min(MAX_PAUSE),
        };
        state.last.is_none_or(|last| last.elapsed() >= pause)
    }
}
