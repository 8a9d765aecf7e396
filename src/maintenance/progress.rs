//! How far long work is, for whoever watches it.

/// So much of a step of long work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done: `looking at blobs`, `copying` …
    pub name: &'static str,
    /// So many are done.
    pub done: u64,
    /// Of so many, about; 0 if nobody knows.
    pub total: u64,
}

/// Who watches.
pub type Watch<'a> = dyn FnMut(Step) + Send + 'a;
