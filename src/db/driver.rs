//! Notices that a thread of SQLite's driver has died.
//!
//! Each SQLite connection is a thread of the driver. When such a thread panics, the driver does not answer with an error: rows
//! simply end, as if there were no more, and a command that is in its inbox at that moment is never answered. Neither may be
//! taken for a result, so each statement asks here whether a thread died while it ran.

use std::{
    sync::{Arc, LazyLock, Once},
    time::Duration,
};

use sea_orm::{DbErr, RuntimeErr, sqlx};
use tokio::sync::watch;

/// The names of the driver's threads begin like this.
pub(super) const THREAD_PREFIX: &str = "pm-sqlite-";

/// A statement that is not answered this long after a thread died is on that thread's connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How many threads have died in this process.
static DEATHS: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// Counts panics of the driver's threads from now on; the hook that was there before goes on.
pub(super) fn watch_threads() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some_and(|name| name.starts_with(THREAD_PREFIX)) {
                DEATHS.send_modify(|deaths| *deaths += 1);
            }
            next(panic);
        }));
    });
}

/// Runs a statement; fails if a thread of the driver died meanwhile, since its rows may then be incomplete.
pub(super) async fn rows<T>(statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    let before = *DEATHS.borrow();
    let outcome = answered(statement).await?;
    if *DEATHS.borrow() == before { Ok(outcome) } else { Err(died()) }
}

/// Waits for an answer; fails if it does not come because a thread of the driver died. An answer that comes is a true one.
pub(super) async fn answered<T>(command: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    tokio::select! {
        biased;
        outcome = command => outcome,
        error = death() => Err(error),
    }
}

async fn death() -> DbErr {
    // The sender is static, so there is always another change to wait for.
    let _ = DEATHS.subscribe().changed().await;
    tokio::time::sleep(ANSWER_LIMIT).await;
    died()
}

fn died() -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(sqlx::Error::WorkerCrashed)))
}

#[cfg(test)]
mod tests {
    use std::{future, thread};

    use super::*;

    fn let_a_thread_die() {
        watch_threads();
        let thread = thread::Builder::new().name(format!("{THREAD_PREFIX}test"));
        let died =
            thread.spawn(|| panic!("as a driver does whose rows have too many columns")).expect("a thread").join();
        died.expect_err("it died");
    }

    #[tokio::test]
    async fn rows_that_end_because_the_driver_died_are_an_error() {
        let none = rows(async {
            let_a_thread_die();
            Ok(Vec::<i64>::new())
        });
        assert!(matches!(none.await, Err(DbErr::Conn(_))));
    }

    #[tokio::test]
    async fn a_command_that_the_dead_driver_never_answers_fails() {
        let never = answered(future::pending::<Result<(), DbErr>>());
        let dies = async {
            tokio::task::yield_now().await;
            let_a_thread_die();
        };
        let (outcome, ()) = tokio::join!(never, dies);
        assert!(matches!(outcome, Err(DbErr::Conn(_))));
    }
}
