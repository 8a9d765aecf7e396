//! Measurements of an experiment: request times, and fields of its JSON line.

use std::time::Duration;

use serde_json::{Value, json};

use crate::soundness::Counts;

/// The durations of a set of requests.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds a duration.
    pub fn note(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Returns the number of durations.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the quantile `share` (0 to 1); zero if there are no durations.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    /// Returns the longest duration.
    pub fn longest(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// Returns milliseconds to one decimal, as JSON lines show them.
pub fn milliseconds(time: Duration) -> Value {
    json!((time.as_secs_f64() * 10_000.0).round() / 10.0)
}

/// Returns the fields of a JSON object as the experiment's counts.
///
/// # Panics
/// If the value is not an object.
pub fn counts(value: Value) -> Counts {
    match value {
        Value::Object(fields) => fields,
        other => panic!("counts are an object, not {other}"),
    }
}
