//! An attempt at a job that did not succeed.

use crate::{clock::Timestamp, code::ErrorCode};

/// How an attempt ended that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// It failed, and another one was to follow.
    Retry,
    /// It failed for good.
    Failed,
    /// The decoder died over the picture.
    Crashed,
    /// The worker is known to have ended.
    WorkerDied,
    /// The worker gave no sign of life for a whole lease. It may live.
    LeaseLost,
}

impl AttemptOutcome {
    /// The word clients see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::WorkerDied => "worker_died",
            Self::LeaseLost => "lease_lost",
        }
    }

    /// The outcome that is written `word`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Retry, Self::Failed, Self::Crashed, Self::WorkerDied, Self::LeaseLost]
            .into_iter()
            .find(|o| o.as_str() == word)
    }
}

/// An attempt at a job that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number in its run, from 1.
    pub number: i32,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Why; nothing is known of what a dead worker did.
    pub error: Option<(ErrorCode, String)>,
    /// When it ended, or when the worker was found dead.
    pub ended_at: Timestamp,
}
