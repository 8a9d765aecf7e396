//! The cache epoch: decides which entries of the shared cache may be read.
//!
//! The database stores the epoch. An epoch belongs to one run of one Redis server. A process that connects to another
//! server begins the next epoch, and so does a writer that cannot reach any. Every key contains its epoch, so entries
//! of an older one are never read. Two rules, measured by each process's own monotonic clock, prevent processes from
//! using different epochs:
//!
//! - A process uses its knowledge of the epoch for less than [`SETTLING`] after it *sent the query*.
//! - After a change, no entry of the new epoch is read, and no writer gets a response, until [`SETTLING`] has passed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{super::Error, displaced::Displaced};
use crate::{
    db::{
        self, Beside, Database, Unanswered,
        connection::installation::{self, CacheEpoch, CachePhase, Installation},
    },
    domain::InstallationId,
};

/// Time after which every process knows a change or has stopped using older knowledge.
pub const SETTLING: Duration = Duration::from_secs(1);
/// How long an answer is used after its query; the rest of [`SETTLING`] is for the work that follows.
const ANSWER_LIFETIME: Duration = Duration::from_millis(800);
/// Age of an answer after which a reader starts a background query.
const REFRESH_AGE: Duration = Duration::from_millis(400);
/// Timeout of a query to the database.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Delay before the separate connection is queried as well, since the pool may be busy or broken.
const FALLBACK_DELAY: Duration = Duration::from_millis(20);
/// How long a reader waits for the database before it skips the cache.
const READER_TIMEOUT: Duration = Duration::from_millis(50);
/// How long programs without epochs are assumed to run after their last change.
const EARLIER_PROGRAM_LIFETIME: Duration = Duration::from_secs(60);
/// Number of changes by other processes after which a writer gives up.
const CHANGES_PER_WRITE: u32 = 10;

/// An epoch of an installation's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) installation: InstallationId,
    pub(super) number: i64,
}

/// What this process knows of the epoch.
#[derive(Debug)]
struct Known {
    installation: InstallationId,
    epoch: CacheEpoch,
    /// Arrival time of the answer that first had this epoch.
    learned: Instant,
    /// Time of the last query.
    asked: Instant,
}

/// Follows the epoch in the database.
pub(super) struct Epochs {
    database: Database,
    known: RwLock<Option<Arc<Known>>>,
    asking: tokio::sync::Mutex<()>,
    opening: tokio::sync::Mutex<()>,
    asking_in_background: AtomicBool,
    beside: Beside,
    /// The last query without an answer; `None` if one was answered since.
    missed: Mutex<Option<Missed>>,
    /// Counts answers and failures.
    answers: watch::Sender<u64>,
    displaced: Displaced,
    /// Time of the last epoch that the database began for a program without epochs.
    earlier_program_seen: Mutex<Option<Instant>>,
}

/// A query that was not answered.
#[derive(Clone, Copy, Debug)]
struct Missed {
    asked: Instant,
    /// Whether the server refuses connections, so that no process can write.
    refused: bool,
}

/// Whether entries may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// Entries may be read.
    Yes,
    /// Not yet: the epoch is settling.
    Settling,
    /// The connection's epoch is over.
    Over,
}

impl Known {
    fn generation(&self) -> Generation {
        Generation { installation: self.installation.clone(), number: self.epoch.number }
    }

    fn is_of(&self, generation: &Generation) -> bool {
        self.epoch.number == generation.number && self.installation == generation.installation
    }

    fn is_settled(&self) -> bool {
        self.learned.elapsed() >= SETTLING
    }
}

impl Epochs {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            known: RwLock::default(),
            asking: tokio::sync::Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            asking_in_background: AtomicBool::new(false),
            beside: Beside::default(),
            missed: Mutex::default(),
            answers: watch::Sender::default(),
            displaced: Displaced::default(),
            earlier_program_seen: Mutex::default(),
        }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Returns the epoch of this server; begins the next one if the current one has another server.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database does not answer, or other processes keep choosing another server.
    pub(super) async fn adopt(&self, server: &str) -> Result<Generation, Error> {
        for _ in 0..CHANGES_PER_WRITE {
            let known = self.ask().await?;
            if known.epoch.server.as_deref() == Some(server) {
                return Ok(known.generation());
            }
            if !self.displaced.may_choose() {
                return Err(Error::Unavailable("other processes use another Redis server or none".into()));
            }
            let phase = match known.epoch.phase {
                CachePhase::Unused => CachePhase::Open,
                CachePhase::Closed => CachePhase::Closed,
                CachePhase::Closing | CachePhase::Open => CachePhase::Closing,
            };
            let next = CacheEpoch { number: known.epoch.number + 1, server: Some(server.to_owned()), phase };
            if self.change(&known, &next).await? {
                tracing::info!(epoch = next.number, "began cache epoch {} for this Redis server", next.number);
            }
        }
        Err(Error::Unavailable("other processes keep changing the cache epoch".into()))
    }

    /// Returns whether entries of `generation` may be read.
    /// It waits briefly for a running query.
    /// While the database refuses connections, no process can acknowledge a write, so the known epoch stays valid. A
    /// database that does not answer may still answer another process.
    pub(super) async fn readable(&self, generation: &Generation) -> Readable {
        let mut answers = self.answers.subscribe();
        if !self.is_reliable() {
            let _ = tokio::time::timeout(READER_TIMEOUT, answers.changed()).await;
        }
        match self.known() {
            Some(known) if self.is_reliable() => self.judge(&known, generation).await,
            Some(_) => Readable::Settling,
            None => Readable::Over,
        }
    }

    fn is_reliable(&self) -> bool {
        let refused = self.missed().is_some_and(|missed| missed.refused && missed.asked.elapsed() < ANSWER_LIFETIME);
        refused || self.known().is_some_and(|known| known.asked.elapsed() < ANSWER_LIFETIME)
    }

    /// Returns whether the next reader should start a query in the background.
    pub(super) fn is_due(&self) -> bool {
        let age = self.known().map(|known| known.asked.elapsed());
        age.is_some_and(|age| age >= REFRESH_AGE)
            && self.missed().is_none_or(|missed| missed.asked.elapsed() >= REFRESH_AGE)
            && !self.asking_in_background.swap(true, Ordering::AcqRel)
    }

    /// Queries the database; called once for each `true` of [`is_due`](Self::is_due).
    pub(super) async fn refresh(&self) {
        if let Err(error) = self.ask().await {
            tracing::debug!(%error, "cannot read the cache epoch");
        }
        self.asking_in_background.store(false, Ordering::Release);
    }

    /// Waits until a writer that deleted its entries in `generation` may be acknowledged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the epoch is over: the entries must be deleted from another server.
    pub(super) async fn deleted(&self, generation: &Generation) -> Result<(), Error> {
        loop {
            let known = self.relied_on().await?;
            if !known.is_of(generation) {
                return Err(Error::Unavailable("another process began a new cache epoch".into()));
            }
            if known.epoch.phase != CachePhase::Closing {
                return Ok(());
            }
            self.wait(&known).await?;
        }
    }

    /// Returns whether the cache is closed for all processes.
    /// A writer then need not delete anything.
    pub(super) async fn is_closed(&self) -> bool {
        let known = self.relied_on().await;
        known.is_ok_and(|known| known.epoch.server.is_none() && known.epoch.phase == CachePhase::Closed)
    }

    /// Closes the cache for all processes and waits until none reads it.
    /// A writer that cannot reach the server calls it.
    pub(super) async fn close(&self) -> Result<(), Error> {
        for _ in 0..CHANGES_PER_WRITE {
            let known = self.relied_on().await?;
            let CacheEpoch { number, server, phase } = &known.epoch;
            match (server, phase) {
                (None, CachePhase::Closed) => return Ok(()),
                (None, CachePhase::Closing) => {
                    self.wait(&known).await?;
                }
                (None, CachePhase::Unused | CachePhase::Open) => {
                    self.change(&known, &CacheEpoch { phase: CachePhase::Closed, ..known.epoch.clone() }).await?;
                }
                (Some(_), _) => {
                    let phase = if *phase == CachePhase::Closed { CachePhase::Closed } else { CachePhase::Closing };
                    if self.change(&known, &CacheEpoch { number: number + 1, server: None, phase }).await? {
                        tracing::warn!(
                            "closed the Redis cache for all processes: changed entries could not be deleted"
                        );
                    }
                }
            }
        }
        Err(Error::Unavailable("other processes keep reopening the cache".into()))
    }

    /// Opens an epoch when its time has come; one reader at a time does so.
    async fn judge(&self, known: &Known, generation: &Generation) -> Readable {
        if !known.is_of(generation) {
            return Readable::Over;
        }
        if known.epoch.phase == CachePhase::Open {
            return Readable::Yes;
        }
        if known.is_settled()
            && let Ok(_opening) = self.opening.try_lock()
            && let Ok(opened) = self.settle(known).await
            && opened.is_of(generation)
            && opened.epoch.phase == CachePhase::Open
        {
            return Readable::Yes;
        }
        Readable::Settling
    }

    /// Returns whether a program without epochs has written recently.
    pub(super) fn earlier_programs_write(&self) -> bool {
        let seen = *self.earlier_program_seen.lock();
        seen.is_some_and(|seen| seen.elapsed() < EARLIER_PROGRAM_LIFETIME)
    }

    /// Records that another process chose another server.
    pub(super) fn note_displaced(&self, server: &str) {
        if self.known().is_some_and(|known| known.epoch.server.as_deref() == Some(server)) {
            return;
        }
        self.displaced.note();
    }

    /// Returns the known epoch if its query is recent enough to use.
    async fn relied_on(&self) -> Result<Arc<Known>, Error> {
        match self.known().filter(|known| known.asked.elapsed() < ANSWER_LIFETIME) {
            Some(known) => Ok(known),
            None => self.ask().await,
        }
    }

    /// Waits until every process knows the epoch, and records that.
    async fn wait(&self, known: &Known) -> Result<Arc<Known>, Error> {
        tokio::time::sleep(SETTLING.saturating_sub(known.learned.elapsed())).await;
        self.settle(known).await
    }

    /// Moves the epoch to its last phase.
    async fn settle(&self, known: &Known) -> Result<Arc<Known>, Error> {
        let phase = if known.epoch.server.is_some() { CachePhase::Open } else { CachePhase::Closed };
        self.change(known, &CacheEpoch { phase, ..known.epoch.clone() }).await?;
        self.ask().await
    }

    async fn change(&self, known: &Known, next: &CacheEpoch) -> Result<bool, Error> {
        let connection = self.database.read();
        let change = installation::change_cache_epoch(&connection, &known.installation, &known.epoch, next);
        let changed = within(change).await.map_err(|error| Error::Unavailable(error.into()));
        // This query runs even after a failure: the commit may have succeeded.
        self.ask().await?;
        changed
    }

    /// Queries the database. Calls during a running query share the next one.
    async fn ask(&self) -> Result<Arc<Known>, Error> {
        let came = Instant::now();
        let _asking = self.asking.lock().await;
        if let Some(known) = self.known().filter(|known| known.asked > came) {
            return Ok(known);
        }
        if self.missed().is_some_and(|missed| missed.asked > came) {
            return Err(Error::Unavailable("the database did not answer a moment ago".into()));
        }
        let asked = Instant::now();
        let answered = match self.find().await {
            Ok(found) => {
                self.set_missed(None);
                Ok(self.note(found, asked))
            }
            Err(unanswered) => {
                if let Unanswered::Silent(error) = &unanswered
                    && !error.is_transient()
                {
                    // The schema is being recreated: all earlier knowledge is invalid.
                    *self.known.write() = None;
                }
                self.set_missed(Some(Missed { asked, refused: matches!(unanswered, Unanswered::Refused(_)) }));
                Err(Error::Unavailable(unanswered.into()))
            }
        };
        self.answers.send_modify(|count| *count += 1);
        answered
    }

    /// Queries the pool, and later the separate connection as well.
    /// The second query starts after a delay or a failure.
    async fn find(&self) -> Result<Installation, Unanswered> {
        let connection = self.database.read();
        let mut pooled = std::pin::pin!(within(installation::read(&connection)));
        match tokio::time::timeout(FALLBACK_DELAY, &mut pooled).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) if !error.is_transient() || self.database.is_sqlite() => {
                return Err(Unanswered::Silent(error));
            }
            Ok(Err(_)) => return installation::read_beside(&self.database, &self.beside).await,
            Err(_) if self.database.is_sqlite() => return pooled.await.map_err(Unanswered::Silent),
            Err(_) => {}
        }
        tokio::select! {
            Ok(found) = pooled => Ok(found),
            found = installation::read_beside(&self.database, &self.beside) => found,
        }
    }

    fn note(&self, found: Installation, asked: Instant) -> Arc<Known> {
        let mut known = self.known.write();
        // Only the database itself begins an epoch for the same server as before.
        let is_by_database = known.as_ref().is_some_and(|before| {
            before.installation == found.id
                && before.epoch.number < found.cache.number
                && before.epoch.server.is_some()
                && before.epoch.server == found.cache.server
        });
        if is_by_database {
            *self.earlier_program_seen.lock() = Some(asked);
        }
        let before = known
            .as_ref()
            .filter(|before| before.installation == found.id && before.epoch.number == found.cache.number);
        let learned = before.map_or_else(Instant::now, |before| before.learned);
        let now = Arc::new(Known { installation: found.id, epoch: found.cache, learned, asked });
        *known = Some(Arc::clone(&now));
        now
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.known.read().clone()
    }

    fn missed(&self) -> Option<Missed> {
        *self.missed.lock()
    }

    fn set_missed(&self, missed: Option<Missed>) {
        *self.missed.lock() = missed;
    }
}

async fn within<T>(work: impl Future<Output = Result<T, db::Error>>) -> Result<T, db::Error> {
    tokio::time::timeout(ASK_TIMEOUT, work).await.unwrap_or_else(|_| Err(db::Error::timed_out(ASK_TIMEOUT)))
}
