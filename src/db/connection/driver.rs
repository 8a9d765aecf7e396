//! Detects panics in the threads of the SQLite driver.
//!
//! Each SQLite connection is a thread of the driver. When such a thread panics, the driver does not return an error:
//! rows simply end, as if there were no more, and a command in its queue is never answered. Neither may count as a
//! result, so each statement checks here whether a thread panicked while it ran.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use sea_orm::{DbErr, RuntimeErr, sqlx};
use tokio::sync::watch;

/// Prefix of the driver's thread names; the numbers of the pool and the thread follow.
const THREAD_PREFIX: &str = "pm-sqlite-";

/// Time limit for an answer after a panic; a later answer would come from the panicked thread.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Number of panicked threads per pool.
static DEATHS: LazyLock<Mutex<BTreeMap<u64, watch::Sender<u64>>>> = LazyLock::new(Mutex::default);

/// The driver threads of one pool. The last clone removes the pool's count.
#[derive(Clone, Debug)]
pub(in crate::db) struct Threads(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    number: u64,
    deaths: watch::Receiver<u64>,
}

impl Threads {
    /// Starts counting panics in the threads of a new pool.
    pub(in crate::db) fn watch() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        watch_panics();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (count, deaths) = watch::channel(0);
        all().insert(number, count);
        Self(Arc::new(Pool { number, deaths }))
    }

    /// Returns the name of the pool's thread with this number.
    pub(in crate::db) fn name(&self, thread: u64) -> String {
        format!("{THREAD_PREFIX}{}-{thread}", self.0.number)
    }

    /// Runs a statement; fails if a thread of the pool panicked meanwhile.
    /// After a panic rows may be missing.
    pub(in crate::db) async fn rows<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        let before = *self.0.deaths.borrow();
        let outcome = self.answered(statement).await?;
        if *self.0.deaths.borrow() == before { Ok(outcome) } else { Err(died()) }
    }

    /// Waits for an answer; fails if a thread of the pool panics first.
    /// An answer that arrives is complete.
    pub(in crate::db) async fn answered<T>(&self, command: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        // A panic counts from here on, even before the command is sent.
        let mut deaths = self.0.deaths.clone();
        deaths.mark_unchanged();
        let death = async {
            // The sender lives as long as this handle, so `changed` never fails.
            let _ = deaths.changed().await;
            tokio::time::sleep(ANSWER_LIMIT).await;
        };
        tokio::select! {
            biased;
            outcome = command => outcome,
            () = death => Err(died()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        all().remove(&self.number);
    }
}

fn all() -> MutexGuard<'static, BTreeMap<u64, watch::Sender<u64>>> {
    DEATHS.lock()
}

/// Installs a panic hook that counts panics by thread name.
/// It then calls the previous hook.
fn watch_panics() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if let Some(number) = std::thread::current().name().and_then(pool_of)
                && let Some(deaths) = all().get(&number)
            {
                deaths.send_modify(|deaths| *deaths += 1);
            }
            next(panic);
        }));
    });
}

/// Returns the number of the pool that a thread with this name belongs to.
fn pool_of(thread: &str) -> Option<u64> {
    thread.strip_prefix(THREAD_PREFIX)?.split_once('-')?.0.parse().ok()
}

fn died() -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(sqlx::Error::WorkerCrashed)))
}

#[cfg(test)]
mod tests {
    use std::{future, thread};

    use super::*;

    fn let_a_thread_die(threads: &Threads) {
        let thread = thread::Builder::new().name(threads.name(1));
        let died =
            thread.spawn(|| panic!("as a driver does whose rows have too many columns")).expect("a thread").join();
        died.expect_err("it died");
    }

    #[tokio::test]
    async fn rows_cut_off_by_a_driver_panic_are_an_error() {
        let threads = Threads::watch();
        let none = threads.rows(async {
            let_a_thread_die(&threads);
            Ok(Vec::<i64>::new())
        });
        assert!(matches!(none.await, Err(DbErr::Conn(_))));
    }

    #[tokio::test]
    async fn a_command_to_a_panicked_driver_thread_fails() {
        let threads = Threads::watch();
        let never = threads.answered(future::pending::<Result<(), DbErr>>());
        let dies = async {
            tokio::task::yield_now().await;
            let_a_thread_die(&threads);
        };
        let (outcome, ()) = tokio::join!(never, dies);
        assert!(matches!(outcome, Err(DbErr::Conn(_))));
    }

    #[tokio::test]
    async fn a_panic_in_another_pool_does_not_affect_this_pool() {
        let (threads, others) = (Threads::watch(), Threads::watch());
        let rows = threads.rows(async {
            let_a_thread_die(&others);
            Ok(vec![1])
        });
        assert!(matches!(rows.await.as_deref(), Ok([1])));
    }
}
