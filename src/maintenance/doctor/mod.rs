//! Checks the integrity of the data while the system is running.
//!
//! Each invariant is checked page by page. A violation is checked again a moment later, because concurrent changes can
//! cause false positives. Checks change nothing; see [`repair`] for repairs.

mod entries;
mod repair;
mod rows;
mod stored;

pub use repair::{Repair, Repaired};

use std::time::Duration;

use crate::{
    cache::Cache,
    catalog::{Catalog, Error},
    maintenance::progress::Watch,
};

/// Maximum number of reported examples per invariant.
const EXAMPLES: usize = 100;
/// Maximum number of violations per repair; a second run repairs the rest.
const MAX_REPAIRED: usize = 20_000;
/// Rows or keys per page.
const PAGE: u64 = 500;
/// Delay before a violation is checked again.
const MOMENT: Duration = Duration::from_secs(1);

/// A property that always holds, or holds again within seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Every image has a final status or exactly one live job of its current generation.
    Images,
    /// The blob of every rendition and variant exists and matches its key.
    Blobs,
    /// The blob of every uploaded source exists and matches its key.
    Sources,
    /// No unreferenced blob is older than [`GRACE`](crate::maintenance::GRACE).
    Orphans,
    /// No unfinished file is older than the same grace period.
    Unfinished,
    /// With a broker: no due job waits to be dispatched.
    Outbox,
    /// With Redis: no invalidation is overdue.
    Invalidations,
    /// No dead process holds a lease.
    Leases,
    /// Each cached product equals its row.
    Entries,
}

/// How thoroughly blobs are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Checks existence and size.
    Quick,
    /// Reads all bytes and checks the hash.
    #[default]
    Full,
}

/// The result of checking an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The invariant.
    pub invariant: Invariant,
    /// Number of rows, blobs or entries checked.
    pub looked_at: u64,
    /// Number of violations.
    pub broken: u64,
    /// Ids or keys of up to 100 violations.
    pub examples: Vec<String>,
    /// Ids or keys of all violations, at most [`MAX_REPAIRED`].
    pub(super) all: Vec<String>,
}

impl Invariant {
    /// All invariants in the order of checking.
    pub const ALL: [Self; 9] = [
        Self::Images,
        Self::Blobs,
        Self::Sources,
        Self::Orphans,
        Self::Unfinished,
        Self::Outbox,
        Self::Invalidations,
        Self::Leases,
        Self::Entries,
    ];

    /// Returns the name in the output of `pm doctor`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Blobs => "blobs",
            Self::Sources => "sources",
            Self::Orphans => "orphans",
            Self::Unfinished => "unfinished",
            Self::Outbox => "outbox",
            Self::Invalidations => "invalidations",
            Self::Leases => "leases",
            Self::Entries => "entries",
        }
    }
}

impl Finding {
    const fn new(invariant: Invariant) -> Self {
        Self { invariant, looked_at: 0, broken: 0, examples: Vec::new(), all: Vec::new() }
    }

    fn note(&mut self, example: impl ToString) {
        self.broken += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example.to_string());
        }
        if self.all.len() < MAX_REPAIRED {
            self.all.push(example.to_string());
        }
    }
}

impl Catalog {
    /// Checks one invariant, with memory independent of the catalog's size.
    pub async fn inspect(&self, invariant: Invariant, depth: Depth, watch: &mut Watch<'_>) -> Result<Finding, Error> {
        match invariant {
            Invariant::Images => rows::images(self, watch).await,
            Invariant::Blobs | Invariant::Sources => stored::blobs(self, invariant, depth, watch).await,
            Invariant::Orphans => stored::orphans(self, watch).await,
            Invariant::Unfinished => stored::unfinished(self).await,
            Invariant::Outbox | Invariant::Invalidations => rows::overdue(self, invariant).await,
            Invariant::Leases => rows::leases(self).await,
            Invariant::Entries => entries::cached(self, watch).await,
        }
    }

    /// Whether the invariant applies to the configured engines.
    pub fn has(&self, invariant: Invariant) -> bool {
        match invariant {
            Invariant::Outbox => self.queue().needs_relay(),
            // With an in-process cache the rows are a log, which is kept for a while, or forever if no process sweeps.
            Invariant::Invalidations => matches!(self.cache(), Cache::Redis(_)),
            Invariant::Entries => !matches!(self.cache(), Cache::Off),
            _ => true,
        }
    }
}
