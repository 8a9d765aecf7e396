//! Figures of an experiment: how long requests took, and what goes into its JSON line.

use std::time::Duration;

use serde_json::{Value, json};

use crate::soundness::Counts;

/// How long each of some requests took.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Notes one more.
    pub fn note(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that this share of them, 0 to 1, did not pass; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    /// The longest of them.
    pub fn longest(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// Milliseconds to a tenth, as JSON lines have them.
pub fn milliseconds(time: Duration) -> Value {
    json!((time.as_secs_f64() * 10_000.0).round() / 10.0)
}

/// The fields of a JSON object as the counts of an experiment.
///
/// # Panics
/// If it is no object.
pub fn counts(value: Value) -> Counts {
    match value {
        Value::Object(fields) => fields,
        other => panic!("counts are an object, not {other}"),
    }
}
