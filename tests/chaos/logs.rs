//! Reads the program's log lines.

use serde_json::Value;

/// Counts attempts in a worker's log with this outcome, such as `ready` or `lost`.
pub fn attempts(log: &str, outcome: &str) -> usize {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["outcome"] == outcome).count()
}
