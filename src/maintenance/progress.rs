//! Progress reports of long operations.

/// Progress of one step of a long operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The step: `checking blobs`, `copying rows` …
    pub name: &'static str,
    /// Number of finished items.
    pub done: u64,
    /// Approximate number of all items; 0 if unknown.
    pub total: u64,
}

/// Receives progress reports.
pub type Watch<'a> = dyn FnMut(Step) + Send + 'a;
