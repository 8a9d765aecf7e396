//! Logs and counts each attempt at a job.

use std::time::{Duration, Instant};

use crate::{
    catalog::{Claimed, Error},
    jobs::{Failure, Steps},
};

/// Outcome of an attempt.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// The image is ready. `reused`: another image had the same bytes.
    Ready { steps: Steps, reused: bool },
    /// The image failed for good.
    Failed(Failure),
    /// Another attempt follows after this delay.
    Retry(Failure, Duration),
    /// The decoder crashed; another attempt follows unless it crashed too often.
    Crashed(Failure),
    /// Released because the worker stops.
    Released,
    /// Another worker has the job, or the product was deleted.
    Lost,
    /// The result could not be stored; the lease will expire.
    Unsettled(Error),
}

impl Ending {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Failed(_) => "failed",
            Self::Retry(..) => "retry",
            Self::Crashed(_) => "crashed",
            Self::Released => "released",
            Self::Lost => "lost",
            Self::Unsettled(_) => "unsettled",
        }
    }
}

/// Logs and counts an attempt that started at `began`.
pub(super) fn report(claimed: &Claimed, ending: &Ending, began: Instant) {
    let (job, outcome) = (&claimed.job, ending.name());
    let duration = began.elapsed();
    let duration_ms = millis(duration);
    metrics::counter!("pm_jobs_total", "outcome" => outcome).increment(1);
    metrics::histogram!("pm_job_duration_seconds", "outcome" => outcome).record(duration.as_secs_f64());
    // Error level, so that the span's fields appear on warnings at every log level.
    let span = tracing::error_span!(
        "job",
        job.id = job.id.0,
        image.id = job.image_id.0,
        product.id = claimed.product_id.0,
        attempt = job.attempt,
        request_id = job.request_id.as_deref(),
    );
    let _entered = span.enter();
    match ending {
        Ending::Ready { steps, reused } => {
            count_steps(steps);
            tracing::info!(
                outcome,
                duration_ms,
                fetch_ms = millis(steps.fetch),
                wait_ms = millis(steps.wait),
                decode_ms = millis(steps.decode),
                resize_ms = millis(steps.resize),
                encode_ms = millis(steps.encode),
                store_ms = millis(steps.store),
                reused,
                "processed image {}",
                job.image_id
            );
        }
        Ending::Failed(failure) => {
            let (code, message) = (failure.code.as_str(), &failure.message);
            tracing::warn!(outcome, code, duration_ms, "image {} failed: {message}", job.image_id);
        }
        Ending::Retry(failure, delay) => {
            let (code, message, delay_ms) = (failure.code.as_str(), &failure.message, millis(*delay));
            tracing::warn!(outcome, code, duration_ms, delay_ms, "image {} will be retried: {message}", job.image_id);
        }
        Ending::Crashed(failure) => {
            tracing::warn!(outcome, duration_ms, "image {}: {}", job.image_id, failure.message);
        }
        Ending::Released => tracing::info!(outcome, duration_ms, "released image {}", job.image_id),
        Ending::Unsettled(error) => {
            let error = error as &dyn std::error::Error;
            tracing::warn!(outcome, duration_ms, error, "cannot store the result of image {}", job.image_id);
        }
        Ending::Lost => {
            tracing::warn!(outcome, duration_ms, "lost the lease of image {}: reassigned or deleted", job.image_id)
        }
    }
}

fn count_steps(steps: &Steps) {
    let named = [
        ("fetch", steps.fetch),
        ("wait", steps.wait),
        ("decode", steps.decode),
        ("resize", steps.resize),
        ("encode", steps.encode),
        ("store", steps.store),
    ];
    for (step, duration) in named {
        metrics::histogram!("pm_job_step_seconds", "step" => step).record(duration.as_secs_f64());
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
