//! Connects engines, catalog, servers and workers from the settings; no other module does.
//!
//! `serve`, `worker` and every other command start here.

mod error;
mod listener;
mod misplaced;
mod opening;
mod private;
mod sandbox;
mod secret_keys;
mod start;
mod store;
mod url_keys;

pub use error::Error;
pub use opening::{Access, open_database, settle_identity};
pub use sandbox::isolation_of;
pub use secret_keys::secret_keys;
pub use store::{own_store, release_store, take_store};
pub use url_keys::restore as restore_url_keys;

use std::{fmt, num::NonZeroUsize, path::PathBuf, sync::Arc};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Links,
    blobs::{self, Blobs},
    cache::{self, Cache},
    catalog::{self, Catalog, Engines},
    config::{DatabaseUrl, Settings},
    db::{Database, connection::installation},
    domain::ImageId,
    fetch::{self, Fetcher},
    health::Health,
    http,
    isolation::{self, Decoders},
    jobs::{self, Handler},
    queue::{self, Queue},
    reload::Reload,
    resize::{Options as ResizeOptions, ResizeConfig, Resizer, UrlKeys},
    telemetry::Metrics,
    worker::{self, Worker},
};

/// Limit of the in-process product cache.
const MEMORY_CACHE_BYTES: u64 = 64 << 20;

/// The components that commands use; cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The use cases.
    pub catalog: Catalog,
    /// Checks whether the engines answer.
    pub health: Health,
    /// The store of image files.
    pub blobs: Blobs,
    /// Notifies workers of jobs.
    pub queue: Queue,
    /// The source of truth.
    pub database: Database,
    /// The settings that the app was built from.
    pub settings: Arc<Settings>,
    /// The keys that sign variant URLs.
    pub url_keys: Option<UrlKeys>,
    /// Whether the marker has proved that the blob store belongs to this installation.
    store_compared: bool,
    /// The decoder program; `None` decodes images in this process.
    decoder_program: Option<PathBuf>,
    /// Triggers a reload of the certificate files.
    reload: Reload,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl App {
    /// Connects every engine with [`Access::Serve`].
    ///
    /// # Errors
    /// As for [`App::open`].
    pub async fn build(settings: Settings) -> Result<Self, Error> {
        Self::open(settings, Access::Serve).await
    }

    /// Connects every engine.
    ///
    /// `access` decides whether this creates a missing catalog and migrates an older schema.
    ///
    /// # Errors
    /// [`Error`] names the component that cannot be used. An unavailable broker or Redis is no error: pm retries them.
    pub async fn open(settings: Settings, access: Access) -> Result<Self, Error> {
        // All TLS clients of the process share one provider. An error means that it is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if access != Access::Existing {
            private::restrict(&settings, &storage_engine(&settings)?).await;
        }
        let database = opening::open_catalog(&settings, access).await?;
        let installation = installation::read(&database.read()).await?;
        let (blobs, store_compared) = store::open_store(&settings, &database, &installation).await?;
        let cache = Cache::connect(&cache_engine(&settings, &database)).await?;
        let (id, current_id) = watch::channel(installation.id);
        let queue = Queue::connect(&queue_engine(&settings), &database.read(), current_id).await?;
        let secret_keys = secret_keys(&settings, access != Access::Existing).await?;
        if let (Some(keys), Access::Serve) = (&secret_keys, access) {
            catalog::encrypt_secrets(&database, keys).await?;
        }
        let config = catalog::Config {
            secret_keys,
            public_url: settings.public_url.clone(),
            auto_users: settings.auto_users,
            policy: settings.fetching.policy.clone(),
            presets: settings.presets.clone(),
            max_waiting_jobs_per_user: Some(settings.max_waiting_jobs_per_user),
            limits: sandbox::limits(&settings),
        };
        let engines = Engines {
            database: database.clone(),
            cache: cache.clone(),
            queue: queue.clone(),
            blobs: blobs.clone(),
            installation: id,
        };
        let health = Health { database: database.clone(), cache, queue: queue.clone(), blobs: blobs.clone() };
        let catalog = Catalog::new(config, engines);
        if let Err(error) = catalog.look_for_plain_originals().await {
            tracing::debug!(%error, "could not check for originals of earlier versions; an image request will retry");
        }
        let url_keys = url_keys::of(&settings, access != Access::Existing).await?;
        let settings = Arc::new(settings);
        let (decoder_program, reload) = (None, Reload::default());
        Ok(Self {
            catalog,
            health,
            blobs,
            queue,
            database,
            settings,
            url_keys,
            store_compared,
            decoder_program,
            reload,
        })
    }

    /// Decodes images in processes of `program`, unless the settings turn isolation off.
    ///
    /// `program` must call [`isolation::run_decoder`] first if its only argument is [`isolation::ARGUMENT`].
    #[must_use]
    pub fn isolated_by(self, program: PathBuf) -> Self {
        let config = isolation_of(&self.settings, Some(program), catalog::FILES_IN_MEMORY);
        self.catalog.examine_by(Decoders::new(&config));
        Self { decoder_program: config.program, ..self }
    }

    /// Reloads the certificate files whenever `reload` requests it.
    #[must_use]
    pub fn reloaded_by(self, reload: Reload) -> Self {
        Self { reload, ..self }
    }

    /// Answers requests on `listener` until `stop`.
    ///
    /// A worker in the same process handles `workers` images at a time; 0 starts no worker.
    ///
    /// # Errors
    /// If the worker cannot be made.
    pub async fn serve(&self, listener: TcpListener, workers: usize, stop: CancellationToken) -> Result<(), Error> {
        let upload = self.settings.fetching.max_bytes;
        let reload = self.reload.clone();
        let config = http::Config { max_upload: upload, reload, ..listener::config(&self.settings)? };
        // The worker goes on until the last request has been answered.
        let after_requests = CancellationToken::new();
        let worker = if workers == 0 { None } else { Some(self.worker(workers)?) };
        let stopping = stop.clone();
        let answer = async {
            http::serve(listener, self.http_state(), config, stopping.cancelled_owned()).await;
            after_requests.cancel();
        };
        let deliver = self.deliver(stop.clone())?;
        let work = async {
            if let Some(worker) = worker {
                tokio::join!(worker.run(stop), deliver);
            }
        };
        let run = Box::pin(async { tokio::join!(answer, work, self.run_background_tasks(after_requests.clone())) });
        tokio::select! {
            _ = run => Ok(()),
            error = self.misplaced() => Err(error),
        }
    }

    /// Processes `concurrency` images at a time until `stop`.
    ///
    /// The listener `status`, if any, answers health checks and metrics meanwhile.
    ///
    /// # Errors
    /// If the worker cannot be made.
    pub async fn work(
        &self,
        concurrency: usize,
        status: Option<TcpListener>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let after_jobs = CancellationToken::new();
        let worker = self.worker(concurrency)?;
        let deliver = self.deliver(stop.clone())?;
        let work = async {
            tokio::join!(worker.run(stop), deliver);
            after_jobs.cancel();
        };
        let answer = async {
            if let Some(listener) = status {
                let hosts = match self.settings.worker_listen {
                    Some(address) => listener::hosts(&self.settings, address.ip(), false),
                    None => http::Hosts::default(),
                };
                let config = http::Config { scope: http::Scope::Status, hosts, ..http::Config::default() };
                let stop = after_jobs.clone().cancelled_owned();
                // On the heap, because few workers need this large future.
                Box::pin(http::serve(listener, self.http_state(), config, stop)).await;
            }
        };
        let run = Box::pin(async { tokio::join!(work, answer, self.run_background_tasks(after_jobs.clone())) });
        tokio::select! {
            _ = run => Ok(()),
            error = self.misplaced() => Err(error),
        }
    }

    fn http_state(&self) -> http::State {
        let metrics = Metrics::install();
        http::State {
            images: self.images(),
            originals: self.originals(),
            catalog: self.catalog.clone(),
            blobs: self.blobs.clone(),
            health: self.health.clone(),
            metrics: Arc::new(move || metrics.render()),
        }
    }

    /// Returns a worker that decodes `decoders` images at a time.
    ///
    /// # Errors
    /// If its downloader cannot be created.
    pub fn worker(&self, decoders: usize) -> Result<Worker, Error> {
        let settings = &self.settings;
        let fetcher = self.fetcher()?;
        let config = jobs::Config {
            presets: settings.presets.clone(),
            limits: sandbox::limits(settings),
            memory: settings.image_memory,
            decoders,
            isolation: self.isolation(decoders),
        };
        let handler = Handler::new(config, fetcher, self.blobs.clone());
        Ok(Worker::new(self.catalog.clone(), self.queue.clone(), handler, decoders, self.settings.fetching.per_host))
    }

    fn fetcher(&self) -> Result<Fetcher, Error> {
        let settings = &self.settings;
        Ok(Fetcher::new(&fetch::Config {
            policy: settings.fetching.policy.clone(),
            max_bytes: settings.fetching.max_bytes,
            timeout: settings.fetching.timeout,
            ..fetch::Config::default()
        })?)
    }

    /// Posts messages to webhooks until `stop`.
    fn deliver(&self, stop: CancellationToken) -> Result<impl Future<Output = ()> + use<>, Error> {
        Ok(worker::deliver(self.catalog.clone(), self.fetcher()?, stop))
    }

    /// Returns the configuration of image responses.
    pub fn images(&self) -> http::ImageDelivery {
        let placeholder = self.settings.placeholder;
        http::ImageDelivery { resizer: self.resizer(), keys: self.url_keys.clone(), placeholder }
    }

    /// Returns whether the server serves originals without authentication: only to clients on this machine.
    fn originals(&self) -> http::Originals {
        let is_local = self.settings.listen.ip().is_loopback() && self.settings.public_url.is_none();
        if is_local { http::Originals::Answered } else { http::Originals::Withheld }
    }

    /// Returns the signed URL of a variant of `image`.
    ///
    /// # Errors
    /// A message if the options are invalid or no key is set.
    pub fn signed_address(&self, image: ImageId, options: &str) -> Result<String, String> {
        ResizeOptions::parse(options)?;
        let keys = self.url_keys.as_ref().ok_or("no key that signs variant URLs is set")?;
        let signature = keys.sign(options, &image.to_string());
        Ok(self.catalog.links().resize(&signature, options, image))
    }

    /// Returns the renderer of variants; it renders one variant per core at a time.
    fn resizer(&self) -> Resizer {
        let decoders = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let config = ResizeConfig {
            limits: sandbox::limits(&self.settings),
            memory: self.settings.image_memory,
            decoders,
            isolation: self.isolation(decoders),
        };
        Resizer::new(config, self.catalog.clone(), self.blobs.clone())
    }

    /// Returns the decoder configuration for `decoders` images at a time.
    pub fn isolation(&self, decoders: usize) -> isolation::Config {
        // The extra decoder reads headers while all others decode.
        isolation_of(&self.settings, self.decoder_program.clone(), decoders + 1)
    }

    /// Runs the background tasks of every long-running process until `stop`.
    async fn run_background_tasks(&self, stop: CancellationToken) {
        let metrics_upkeep = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = Metrics::install().keep_up() => {}
            }
        };
        let relay = worker::relay(self.catalog.clone(), self.queue.clone(), stop.clone());
        let notifier = worker::notify_events(self.catalog.clone(), stop.clone());
        let collector = worker::collect(self.catalog.clone(), self.settings.gc_every, stop.clone());
        tokio::join!(relay, notifier, collector, worker::sweep(self.catalog.clone(), stop.clone()), metrics_upkeep);
    }
}

/// Returns the cache engine for the settings.
///
/// Without Redis, SQLite gets an in-process cache that detects changes of the file. PostgreSQL gets no cache, because
/// an in-process cache would not notice commits of other processes.
fn cache_engine(settings: &Settings, database: &Database) -> cache::Engine {
    let lifetimes = cache::Lifetimes { value: settings.cache_lifetime, ..cache::Lifetimes::default() };
    match (&settings.redis_url, &settings.database) {
        (Some(url), _) => cache::Engine::Redis {
            url: url.clone(),
            prefix: settings.redis_prefix.clone(),
            notes: Some(database.clone()),
            shape: catalog::body_shape(&Links::new(settings.public_url.clone())),
            lifetimes,
        },
        (None, DatabaseUrl::Sqlite { path }) => {
            cache::Engine::Memory { max_bytes: MEMORY_CACHE_BYTES, database: path.clone(), lifetimes }
        }
        (None, DatabaseUrl::Postgres { .. }) => cache::Engine::Off,
    }
}

fn queue_engine(settings: &Settings) -> queue::Engine {
    match &settings.rabbitmq_url {
        Some(url) => queue::Engine::RabbitMq { url: url.clone(), queue: settings.rabbitmq_queue.clone() },
        None => queue::Engine::Database,
    }
}

fn storage_engine(settings: &Settings) -> Result<blobs::Engine, Error> {
    let engine = blobs::Engine::parse(&settings.storage_url).map_err(Error::Setting)?;
    Ok(match engine {
        blobs::Engine::S3 { bucket, prefix, options } => {
            let options =
                settings.storage_environment.iter().fold(options, |options, (name, value)| options.with(name, value));
            blobs::Engine::S3 { bucket, prefix, options }
        }
        disk => disk,
    })
}
