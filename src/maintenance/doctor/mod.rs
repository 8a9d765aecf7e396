//! Whether the data are whole: each invariant is looked at page by page while the system is running. What looks wrong is
//! looked at again a moment later, since a busy system changes between two looks. Nothing is changed: see [`repair`].

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

/// So many examples are named of what is broken.
const EXAMPLES: usize = 100;
/// So many are remembered for a repair; what is beyond takes another one.
const MAX_REPAIRED: usize = 20_000;
/// Rows or keys that are looked at together.
const PAGE: u64 = 500;
/// What looks wrong is looked at again after this.
const MOMENT: Duration = Duration::from_secs(1);

/// Something that holds at every moment, or would within seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Every picture has one terminal state or exactly one live job of its present run.
    Images,
    /// The blob of every rendition, and of every form made on demand, is there and is what its key says.
    Blobs,
    /// So is every uploaded source.
    Sources,
    /// No blob that nothing refers to is older than [`GRACE`](crate::maintenance::GRACE).
    Orphans,
    /// No unfinished file is older than that.
    Unfinished,
    /// With a broker: no due job waits to be handed over.
    Outbox,
    /// With Redis: no change waits to be told.
    Invalidations,
    /// No lease is held by the dead.
    Leases,
    /// Each cached product is what its row gives.
    Entries,
}

/// How thoroughly blobs are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// By their presence and their size.
    Quick,
    /// By their bytes.
    #[default]
    Full,
}

/// What a look at an invariant found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The invariant.
    pub invariant: Invariant,
    /// So many rows, blobs or entries were looked at.
    pub looked_at: u64,
    /// So many of them break it.
    pub broken: u64,
    /// Up to a hundred of these: ids or keys.
    pub examples: Vec<String>,
    /// All of these, or the first [`MAX_REPAIRED`].
    pub(super) all: Vec<String>,
}

impl Invariant {
    /// Every one, in the order in which they are looked at.
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

    /// Its name in the output of `pm doctor`.
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
    /// Looks at one invariant; memory stays bounded however large the catalogue is.
    ///
    /// # Errors
    /// By the component that does not answer.
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

    /// Whether the invariant is about something that this set-up has.
    pub fn has(&self, invariant: Invariant) -> bool {
        match invariant {
            Invariant::Outbox => self.queue().needs_relay(),
            // Elsewhere the rows are a log that is kept for a while, or for good where no process sweeps.
            Invariant::Invalidations => matches!(self.cache(), Cache::Redis(_)),
            Invariant::Entries => !matches!(self.cache(), Cache::Off),
            _ => true,
        }
    }
}
