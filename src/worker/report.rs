//! One line and a few figures for each attempt at a job.

use std::time::{Duration, Instant};

use crate::{
    catalog::{Claimed, Error},
    jobs::{Failure, Steps},
};

/// What became of an attempt.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// The picture is ready; perhaps the same was made for another one before.
    Ready { steps: Steps, reused: bool },
    /// The picture cannot be had.
    Failed(Failure),
    /// Another attempt follows after this.
    Retry(Failure, Duration),
    /// Given back, since the worker stops.
    Released,
    /// Another worker has the job by now, or the product was deleted.
    Lost,
    /// What became of it could not be stored; the lease will run out.
    Unsettled(Error),
}

impl Ending {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Failed(_) => "failed",
            Self::Retry(..) => "retry",
            Self::Released => "released",
            Self::Lost => "lost",
            Self::Unsettled(_) => "unsettled",
        }
    }
}

/// Logs and counts an attempt that began at `began`.
pub(super) fn report(claimed: &Claimed, ending: &Ending, began: Instant) {
    let (job, outcome) = (&claimed.job, ending.name());
    let duration = began.elapsed();
    let duration_ms = millis(duration);
    metrics::counter!("pm_jobs_total", "outcome" => outcome).increment(1);
    metrics::histogram!("pm_job_duration_seconds", "outcome" => outcome).record(duration.as_secs_f64());
    // At the highest level, so that warnings still say which job they are about where only warnings are logged.
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
            tracing::warn!(outcome, code, duration_ms, "image {} cannot be had: {message}", job.image_id);
        }
        Ending::Retry(failure, delay) => {
            let (code, message, delay_ms) = (failure.code.as_str(), &failure.message, millis(*delay));
            tracing::warn!(outcome, code, duration_ms, delay_ms, "image {} is tried again: {message}", job.image_id);
        }
        Ending::Released => tracing::info!(outcome, duration_ms, "gave image {} back", job.image_id),
        Ending::Unsettled(error) => {
            let error = error as &dyn std::error::Error;
            tracing::warn!(outcome, duration_ms, error, "what became of image {} could not be stored", job.image_id);
        }
        Ending::Lost => {
            tracing::warn!(outcome, duration_ms, "image {} is another worker's by now, or gone", job.image_id)
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
