//! What the program's own lines say.

use serde_json::Value;

/// How many attempts at a picture ended in this way, such as `ready` or `lost`, by a worker's log.
pub fn attempts(log: &str, outcome: &str) -> usize {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["outcome"] == outcome).count()
}
