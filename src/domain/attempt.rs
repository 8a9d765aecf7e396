//! A failed attempt at a job.

use crate::{clock::Timestamp, code::ErrorCode};

/// How a failed attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// It failed, and a retry was scheduled.
    Retry,
    /// It failed for good.
    Failed,
    /// The decoder crashed on the image.
    Crashed,
    /// The worker process has ended.
    WorkerDied,
    /// The worker sent no heartbeat for a whole lease. It may still run.
    LeaseLost,
}

impl AttemptOutcome {
    /// Returns the outcome's name in responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::WorkerDied => "worker_died",
            Self::LeaseLost => "lease_lost",
        }
    }

    /// Parses an outcome.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Retry, Self::Failed, Self::Crashed, Self::WorkerDied, Self::LeaseLost]
            .into_iter()
            .find(|o| o.as_str() == word)
    }
}

/// A failed attempt at a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number within the generation, from 1.
    pub number: i32,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The error; absent if the worker crashed.
    pub error: Option<(ErrorCode, String)>,
    /// The time at which it ended, or at which the crash was detected.
    pub ended_at: Timestamp,
}
