//! The use-cases: everything that HTTP, the command line and the worker do to products goes through here. It owns the
//! transactions, which only `maintenance` begins as well, and is the only one who tells the cache that something changed.

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
    Happenings, KEPT as EVENTS_KEPT,
    webhook_secrets::{SecretState, encrypt_secrets},
    webhooks::{MOST_WEBHOOKS, Posted},
};
pub use jobs::{
    dead_letters::Requeued,
    process::{AtRisk, Claimed, Due, Found, Outcome, Settlement, Turn},
    reprocess::{Batch, Progress, Selection, Which},
};
pub use products::{
    batch::BatchBody,
    create::{NotStored, Stored},
    idempotency::{Answer, Done},
    originals::Origin,
    pictures::{Form, MOST_VARIANTS, Picture},
    read::{Body, Freshness},
    sources::{FILES_IN_MEMORY, IncomingSource, UploadedFiles},
    update::Updated,
};
pub use tags::{Precondition, Tags, product_tag};

pub use crate::db::products::idempotency::Once;
use tokio::sync::watch;

use crate::{
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

/// What the catalogue is to do.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Put before every link, without a slash at its end; links are paths without it.
    pub public_url: Option<String>,
    /// Whether a product's unknown user is made along with it.
    pub auto_users: bool,
    /// Where pictures may come from.
    pub policy: AddressPolicy,
    /// What is made of each picture.
    pub presets: Vec<Preset>,
    /// What encrypts the secrets of webhooks in the database.
    pub secret_keys: Option<SecretKeys>,
    /// Most jobs that may wait for one user; any number unless set.
    pub max_waiting_jobs_per_user: Option<u64>,
    /// What is refused of files that are handed over.
    pub limits: Limits,
}

/// The engines that the catalogue stands on.
#[derive(Clone, Debug)]
pub struct Engines {
    /// The truth.
    pub database: Database,
    /// What is read without asking the database.
    pub cache: Cache,
    /// How workers learn of jobs.
    pub queue: Queue,
    /// Where pictures are.
    pub blobs: Blobs,
    /// The installation's id; every listener learns of another one.
    pub installation: watch::Sender<InstallationId>,
}

/// The catalogue; cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    engines: Engines,
    links: Links,
    reads: products::read::Reads,
    told: write::Told,
    api_keys: accounts::api_keys::Known,
    happened: events::Happened,
    leases: jobs::leases::Leases,
    waiting: jobs::waiting::Waiting,
    decoders: OnceLock<Decoders>,
    intake: products::intake::Intake,
    originals: products::originals::Originals,
    shown: products::visible::Shown,
}

impl Catalog {
    /// A catalogue over these engines.
    pub fn new(config: Config, engines: Engines) -> Self {
        let links = Links::new(config.public_url.clone());
        let (reads, told, api_keys, happened, leases, waiting) = Default::default();
        let (decoders, intake, originals, shown) = Default::default();
        Self(Arc::new(Inner {
            config,
            engines,
            links,
            reads,
            told,
            api_keys,
            happened,
            leases,
            waiting,
            decoders,
            intake,
            originals,
            shown,
        }))
    }

    /// How links are made.
    pub fn links(&self) -> &Links {
        &self.0.links
    }

    /// Where pictures may come from.
    pub fn policy(&self) -> &AddressPolicy {
        &self.0.config.policy
    }

    /// What is made of each picture.
    pub fn presets(&self) -> &[Preset] {
        &self.0.config.presets
    }

    /// Returns the database's time, by which all processes judge what is due, old or over.
    ///
    /// # Errors
    /// If the database does not answer.
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
