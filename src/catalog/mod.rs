//! Use cases of the product catalog.
//!
//! HTTP, the command line and the worker change products only through this module. It begins all transactions
//! except those of `maintenance`, and it alone invalidates the cache. Every function can fail with
//! [`Error::Unavailable`] when the database does not answer; doc comments do not repeat that.

mod accounts;
mod error;
pub(crate) mod events;
mod installation;
mod jobs;
pub mod products;
mod references;
mod tags;
mod upkeep;
mod write;

use std::sync::{Arc, OnceLock};

pub use crate::db::events::EventPage;
pub use crate::db::products::variants::NewVariant;
pub use error::{BoxError, Error};
pub use events::{
    EVENT_RETENTION, EventSignals,
    webhook_secrets::{SecretState, encrypt_secrets},
    webhooks::{MAX_WEBHOOKS, Posted},
};
pub use jobs::{
    dead_letters::Requeued,
    process::{AtRisk, Claimed, Deduplication, Due, Found, Outcome, Settlement},
    reprocess::{Batch, Progress, Selection, Which},
};
pub use products::{
    batch::BatchBody,
    idempotency::{Answer, Done},
    originals::Origin,
    outcome::{NotStored, Stored},
    presets::{Form, ImageView, MAX_VARIANTS},
    read::{Body, Freshness},
    shape::body_shape,
    sources::{FILES_IN_MEMORY, IncomingSource, UploadedFiles},
    update::Updated,
};
pub use tags::{Precondition, Tags, product_tag};

pub use crate::db::products::idempotency::Once;
use tokio::sync::watch;

use crate::{
    api::Links,
    blobs::Blobs,
    cache::Cache,
    clock::Timestamp,
    db::Database,
    domain::{AddressPolicy, InstallationId},
    imaging::{Limits, Preset},
    isolation::Decoders,
    queue::Queue,
    secret_keys::SecretKeys,
};

/// Configuration of the catalog.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Prefix of every link, without a trailing slash. If it is unset, links are absolute paths.
    pub public_url: Option<String>,
    /// Whether creating a product also creates its unknown user.
    pub auto_users: bool,
    /// Which source addresses are allowed.
    pub policy: AddressPolicy,
    /// The presets that each image is rendered with.
    pub presets: Vec<Preset>,
    /// Keys that encrypt webhook secrets in the database.
    pub secret_keys: Option<SecretKeys>,
    /// Maximum number of queued jobs per user; unlimited if unset.
    pub max_waiting_jobs_per_user: Option<u64>,
    /// Limits on uploaded files.
    pub limits: Limits,
}

/// The engines that the catalog uses.
#[derive(Clone, Debug)]
pub struct Engines {
    /// The source of truth.
    pub database: Database,
    /// Caches product bodies.
    pub cache: Cache,
    /// Notifies workers of jobs.
    pub queue: Queue,
    /// Stores image files.
    pub blobs: Blobs,
    /// The installation's id; receivers are notified when it changes.
    pub installation: watch::Sender<InstallationId>,
}

/// The catalog; cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    engines: Engines,
    links: Links,
    reads: products::read::Reads,
    pending_invalidations: write::PendingInvalidations,
    api_keys: accounts::api_keys::Known,
    event_signal: events::EventSignal,
    leases: jobs::leases::Leases,
    waiting: jobs::waiting::Waiting,
    decoders: OnceLock<Decoders>,
    intake: products::intake::Intake,
    originals: products::originals::Originals,
    shown: products::visible::Shown,
    chunk_cost: products::chunks::ChunkCost,
}

impl Catalog {
    /// Creates a catalog that uses `engines`.
    pub fn new(config: Config, engines: Engines) -> Self {
        let links = Links::new(config.public_url.clone());
        let (reads, pending_invalidations, api_keys, event_signal, leases, waiting) = Default::default();
        let (decoders, intake, originals, shown, chunk_cost) = Default::default();
        Self(Arc::new(Inner {
            config,
            engines,
            links,
            reads,
            pending_invalidations,
            api_keys,
            event_signal,
            leases,
            waiting,
            decoders,
            intake,
            originals,
            shown,
            chunk_cost,
        }))
    }

    /// Returns the link builder.
    pub fn links(&self) -> &Links {
        &self.0.links
    }

    /// Returns which source addresses are allowed.
    pub fn policy(&self) -> &AddressPolicy {
        &self.0.config.policy
    }

    /// Returns the presets that each image is rendered with.
    pub fn presets(&self) -> &[Preset] {
        &self.0.config.presets
    }

    /// Returns the database's time, the clock that all processes compare timestamps with.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.database().now().await?)
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0.engines.database
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.engines.cache
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.engines.queue
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.0.engines.blobs
    }
}
