//! The connection to Redis: connects, checks that the server can be trusted, disconnects.
//!
//! Three rules prevent reads of old values:
//!
//! - The server's name (`live.rs`) is part of every key. A restarted Redis restores deleted keys from its last
//!   snapshot, and one that was a replica for a while restores those of its master. So the name is queried on every new
//!   connection before anything else, and again while the connection is in use.
//! - Another server, as after a failover, begins a new epoch (`epoch.rs`).
//! - A deletion that failed is remembered, and nothing is read until a later attempt succeeds.
//!
//! So no connection repairs itself: after any failure or timeout it is dropped, and the supervisor opens a new one.

use std::{
    future::Future,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisResult, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};
use tokio::sync::Notify;

use super::{
    super::Error,
    breaker::Breaker,
    epoch::{Epochs, Generation, Readable},
    live::{Live, OPERATION_LIMIT, Proven, Server, is_demoted},
    pending::Pending,
};
use crate::{
    db::{Database, cache::invalidations},
    domain::ProductId,
};

/// Version of the keys.
/// Increment it when their form changes. Old and new processes then never read each other's entries, and each must
/// delete the other's. A change of bodies changes their shape instead.
const SCHEMA: u32 = 2;

const CONNECT_LIMIT: Duration = Duration::from_millis(100);
/// Connect timeout with TLS: two more round trips and the computation of a handshake.
const TLS_CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// How long a writer waits for a failed deletion to be repeated.
/// The supervisor repeats it on a new connection.
/// A failed attempt ends the wait at once.
const SECOND_CHANCE_LIMIT: Duration = Duration::from_millis(500);
/// Timeout for reading the pending invalidations from the database; without them the cache stays unavailable.
const NOTES_LIMIT: Duration = Duration::from_secs(1);
/// With more pending invalidations than this, all entries are deleted instead.
const MAX_NOTED: u64 = 10_000;

/// A Redis server and the connection to it, if there is one.
pub(super) struct Link {
    client: Client,
    connect_limit: Duration,
    /// Prefix of every key, before the schema version.
    pub(super) prefix: String,
    /// The epoch in the database; `None` without a database.
    pub(super) epochs: Option<Epochs>,
    live: RwLock<Option<Arc<Live>>>,
    made: AtomicU64,
    breaker: Breaker,
    pending: Pending,
    wake: Notify,
    reported_away: AtomicBool,
}

impl Link {
    /// Parses the URL; does not connect.
    pub(super) fn new(url: &str, prefix: String, notes: Option<Database>) -> Result<Self, Error> {
        let wrong = |error: redis::RedisError| Error::Config(error.into());
        let settings = TcpSettings::default().set_nodelay(true);
        let client = Client::open(url.into_connection_info().map_err(wrong)?.set_tcp_settings(settings));
        let client = client.map_err(wrong)?;
        let tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
        if tls {
            // An error only means that the process has already installed a provider.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Self {
            client,
            connect_limit: if tls { TLS_CONNECT_LIMIT } else { CONNECT_LIMIT },
            prefix,
            epochs: notes.map(Epochs::new),
            live: RwLock::default(),
            made: AtomicU64::new(0),
            breaker: Breaker::default(),
            pending: Pending::new(),
            wake: Notify::new(),
            reported_away: AtomicBool::new(false),
        })
    }

    /// Returns the connection if its entries can be trusted.
    pub(super) async fn trusted(self: &Arc<Self>) -> Result<Arc<Live>, Error> {
        let live = self.settled()?;
        let (Some(epochs), Some(generation)) = (&self.epochs, &live.generation) else { return Ok(live) };
        if live.proven.is_due() {
            let (link, live) = (Arc::clone(self), Arc::clone(&live));
            tokio::spawn(async move { link.prove(&live).await });
        }
        if epochs.is_due() {
            let link = Arc::clone(self);
            tokio::spawn(async move {
                if let Some(epochs) = &link.epochs {
                    epochs.refresh().await;
                }
            });
        }
        if !live.proven.holds(OPERATION_LIMIT).await {
            return Err(down("the Redis server's identity was not confirmed recently"));
        }
        match epochs.readable(generation).await {
            Readable::Yes => Ok(live),
            Readable::Settling => Err(down("the cache epoch began less than a second ago")),
            Readable::Over => Err(self.leave(&live)),
        }
    }

    /// Drops the connection unless the server is still the same master.
    async fn prove(&self, live: &Live) {
        let asked = Instant::now();
        let same = match Server::ask(&mut live.connection()).await {
            Ok(server) if server == live.server => true,
            Ok(_) => {
                self.lose(live, down("the Redis server was demoted and promoted again"));
                false
            }
            Err(error) => {
                self.lose(live, error);
                false
            }
        };
        live.proven.renew(same.then_some(asked));
    }

    /// Returns the trusted connection like [`trusted`](Self::trusted), but waits until a new epoch has settled.
    pub(super) async fn trusted_soon(self: &Arc<Self>) -> Result<Arc<Live>, Error> {
        const TRIES: u32 = 10;
        const PAUSE: Duration = Duration::from_millis(200);
        for _ in 1..TRIES {
            if let Ok(live) = self.trusted().await {
                return Ok(live);
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.trusted().await
    }

    /// Returns the connection if no deletion is pending on it, in any epoch.
    pub(super) fn settled(&self) -> Result<Arc<Live>, Error> {
        let live = self.connected()?;
        if self.pending.is_clear() { Ok(live) } else { Err(down("changes have not been deleted from Redis yet")) }
    }

    /// Returns the connection for data that does not depend on products.
    pub(super) fn connected(&self) -> Result<Arc<Live>, Error> {
        self.live().ok_or_else(|| down("not connected to Redis"))
    }

    /// Waits for an answer within the operation timeout; drops the connection otherwise.
    pub(super) async fn run<T>(&self, live: &Live, answer: impl Future<Output = RedisResult<T>>) -> Result<T, Error> {
        match tokio::time::timeout(OPERATION_LIMIT, answer).await {
            Ok(Ok(value)) => {
                self.breaker.success();
                Ok(value)
            }
            Ok(Err(refusal)) if is_demoted(&refusal) => Err(self.lose(live, Error::Unavailable(refusal.into()))),
            // The server answered with an error, so the connection itself works.
            Ok(Err(refusal)) if refusal.code().is_some() => Err(Error::Unavailable(refusal.into())),
            Ok(Err(broken)) => Err(self.lose(live, Error::Unavailable(broken.into()))),
            Err(late) => Err(self.lose(live, Error::Unavailable(late.into()))),
        }
    }

    /// Deletes these products' values and leases.
    /// If that fails, it remembers them and closes the cache for all processes.
    pub(super) async fn delete(&self, ids: Vec<ProductId>) -> Result<(), Error> {
        if self.earlier_programs_write()
            && let Err(error) = self.delete_for_earlier_programs(&ids).await
        {
            tracing::warn!(%error, "programs of an earlier version may return old values of {} products", ids.len());
        }
        let failure = match self.live() {
            Some(live) => match self.delete_over(&live, &ids).await {
                Ok(()) => return Ok(()),
                // The cause does not matter: the supervisor accepts a connection only after a deletion on it.
                Err(error) => self.lose(&live, error),
            },
            None if self.is_closed().await => return Ok(()),
            None => down("not connected to Redis"),
        };
        let number = self.pending.note(ids.iter().copied());
        self.wake.notify_one();
        // This runs even while the breaker is open: another process may have reconnected to Redis already and read
        // entries that this one has just changed.
        if self.pending.wait(number, SECOND_CHANCE_LIMIT).await
            && let Some(live) = self.live()
            && self.is_settled(&live).await.is_ok()
        {
            return Ok(());
        }
        match &self.epochs {
            Some(epochs) => epochs.close().await,
            None => Err(failure),
        }
    }

    async fn delete_over(&self, live: &Live, ids: &[ProductId]) -> Result<(), Error> {
        live.delete_products(ids).await?;
        self.is_settled(live).await?;
        self.breaker.success();
        Ok(())
    }

    /// Waits until no process can read what was deleted on this connection.
    async fn is_settled(&self, live: &Live) -> Result<(), Error> {
        match (&self.epochs, &live.generation) {
            (Some(epochs), Some(generation)) => epochs.deleted(generation).await,
            _ => Ok(()),
        }
    }

    async fn is_closed(&self) -> bool {
        match &self.epochs {
            Some(epochs) => epochs.is_closed().await,
            None => false,
        }
    }

    /// Maintains a connection and performs pending deletions; never returns.
    pub(super) async fn supervise(self: Arc<Self>) {
        loop {
            let Some(live) = self.live() else {
                // Pending deletions do not wait for the breaker.
                tokio::select! {
                    () = tokio::time::sleep(self.breaker.pause()) => {}
                    () = self.wake.notified() => {}
                }
                self.reconnect().await;
                continue;
            };
            self.wake.notified().await;
            if !self.pending.is_clear()
                && let Err(error) = self.settle(&live).await
            {
                self.lose(&live, error);
            }
        }
    }

    /// Tries once to connect.
    pub(super) async fn reconnect(&self) {
        let newest = self.pending.newest();
        match self.establish().await {
            Ok(live) => {
                *self.live.write().expect("nothing panics under this lock") = Some(Arc::new(live));
                self.reported_away.store(false, Ordering::Relaxed);
                tracing::info!(address = %self.client.get_connection_info().addr(), "connected to Redis");
            }
            Err(error) => {
                self.breaker.failure();
                self.pending.fail(newest);
                self.report_away(&error);
            }
        }
    }

    fn live(&self) -> Option<Arc<Live>> {
        self.live.read().expect("nothing panics under this lock").clone()
    }

    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        // The callers set the timeouts of single answers.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect_limit)).set_response_timeout(None);
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connected.map_err(|error| Error::Unavailable(error.into()))
    }

    /// Connects, identifies the server, and performs pending deletions.
    async fn establish(&self) -> Result<Live, Error> {
        let mut connection = self.connect().await?;
        let asked = Instant::now();
        let server = Server::ask(&mut connection).await?;
        let generation = match &self.epochs {
            Some(epochs) => Some(epochs.adopt(&server.name()).await?),
            None => None,
        };
        let mut live = self.live_over(connection, (server, asked), generation);
        live.find_read_command().await?;
        self.settle_for_all(&live).await?;
        self.settle(&live).await?;
        Ok(live)
    }

    fn live_over(
        &self,
        connection: MultiplexedConnection,
        (server, asked): (Server, Instant),
        generation: Option<Generation>,
    ) -> Live {
        let Self { prefix, .. } = self;
        let (installation, epoch) = match &generation {
            Some(Generation { installation, number }) => (installation.as_str(), *number),
            None => ("none", 0),
        };
        Live {
            number: self.made.fetch_add(1, Ordering::Relaxed),
            connection,
            proven: Proven::at(asked),
            read_command: "GET",
            key_prefix: format!("{prefix}:{SCHEMA}:{installation}:{}:{epoch}:p:", server.name()),
            earlier_key_prefix: self.earlier_key_prefix(&server),
            server,
            quota_prefix: format!("{prefix}:{SCHEMA}:{installation}:q:"),
            generation,
        }
    }

    /// Deletes the changed products that any process recorded.
    /// A process that lost Redis as well may not have deleted them yet.
    async fn settle_for_all(&self, live: &Live) -> Result<(), Error> {
        let Some(epochs) = &self.epochs else { return Ok(()) };
        let database = epochs.database().read();
        let noted = tokio::time::timeout(NOTES_LIMIT, invalidations::products(&database, MAX_NOTED + 1)).await;
        let noted = noted.map_err(|late| Error::Unavailable(late.into()))?;
        let noted = noted.map_err(|error| Error::Unavailable(error.into()))?;
        if noted.len() as u64 > MAX_NOTED { live.delete_everything().await } else { live.delete_products(&noted).await }
    }

    /// Performs pending deletions.
    /// Without any, it deletes a missing key, to check that the server permits deletions.
    async fn settle(&self, live: &Live) -> Result<(), Error> {
        let batch = self.pending.take();
        match live.delete_batch(&batch).await {
            Ok(()) => {
                self.pending.settle(&batch);
                Ok(())
            }
            Err(error) => {
                self.pending.put_back(batch);
                Err(error)
            }
        }
    }

    /// Drops this connection unless it was dropped already, and returns the reason.
    fn lose(&self, live: &Live, reason: Error) -> Error {
        let mut current = self.live.write().expect("nothing panics under this lock");
        if current.take_if(|current| current.number == live.number).is_some() {
            drop(current);
            self.breaker.failure();
            self.report_away(&reason);
            self.wake.notify_one();
        }
        reason
    }

    /// Drops a connection with an old epoch.
    fn leave(&self, live: &Live) -> Error {
        let mut current = self.live.write().expect("nothing panics under this lock");
        if current.take_if(|current| current.number == live.number).is_some() {
            drop(current);
            if let Some(epochs) = &self.epochs {
                epochs.note_displaced(&live.server.name());
            }
            tracing::info!("the cache epoch in Redis is over; reading products from the database for a moment");
            self.wake.notify_one();
        }
        down("the cache epoch of the connection is over")
    }

    fn report_away(&self, error: &Error) {
        if !self.reported_away.swap(true, Ordering::Relaxed) {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(
                address = %self.client.get_connection_info().addr(),
                reason = reason.as_deref().unwrap_or_default(),
                "Redis is unavailable; reading products from the database"
            );
        }
    }
}

fn down(reason: &'static str) -> Error {
    Error::Unavailable(reason.into())
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("connected", &self.live().is_some()).finish_non_exhaustive()
    }
}
