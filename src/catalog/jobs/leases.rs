//! Watching over leases: takes jobs and deliveries from processes that ended or give no sign of life, by what this process
//! itself sees of their leases. A claim that is lost never fails an image; deaths that are proven do, if there are many.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use crate::{
    catalog::{
        Catalog, Error,
        events::PictureStep,
        jobs::process::{MAX_CRASHES, step},
    },
    clock::Timestamp,
    code::ErrorCode,
    db::{
        self, Presence, Write,
        events::deliveries,
        jobs::{
            LEASE, attempts, crashes,
            leases::{self, Losses, Taken},
            waiting,
        },
        products::{self, images},
    },
    domain::{Attempt, AttemptOutcome, EventKind, Lapsed, Lease, LeaseRule, LeaseWatch},
};

/// A worker that dies is not to blame on an image that has a process of its own. But where a system ends the worker along
/// with it, for memory say, it must come to an end all the same.
const MAX_WORKER_DEATHS: i32 = 20;
/// So many claims may be lost without a known reason before the image is made to wait for the next one.
const FREE_LOSSES: i32 = 2;
const FIRST_LOSS_DELAY: Duration = Duration::from_secs(5);
const MAX_LOSS_DELAY: Duration = Duration::from_secs(600);
/// Lock files of processes that ended are removed each so many looks.
const TIDY_EACH: u64 = 60;
/// Leases that are taken in one transaction.
const BATCH: usize = 100;
/// Waiting rows that are corrected in one transaction.
const CORRECTED_TOGETHER: i64 = 1_000;

/// On SQLite the kernel says at once whether a process has ended.
const FILE_RULE: LeaseRule = LeaseRule { lease: LEASE, suspicion: Duration::ZERO, absence: Duration::ZERO };
/// On PostgreSQL a process whose connection was cut off shows itself again within a second or two, and lengthens its
/// leases each five.
const SESSION_RULE: LeaseRule =
    LeaseRule { lease: LEASE, suspicion: Duration::from_secs(5), absence: Duration::from_secs(5) };

/// What this process knows of leases, and what others know of it.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Leases {
    presence: OnceCell<Presence>,
    jobs: Mutex<LeaseWatch>,
    deliveries: Mutex<LeaseWatch>,
    looks: AtomicU64,
}

impl Catalog {
    /// Makes a token for a new lease. It names this process, whose end then proves that the lease is lost.
    pub(in crate::catalog) async fn lease_token(&self) -> String {
        match self.0.leases.presence.get_or_try_init(|| self.database().appear()).await {
            Ok(presence) => presence.id().token(),
            Err(error) => {
                tracing::warn!(%error, "other processes cannot see whether this one lives; its leases are watched instead");
                uuid::Uuid::new_v4().simple().to_string()
            }
        }
    }

    /// Looks at all leases, and takes those whose holder has ended or gave no sign of life for a whole lease. To be called
    /// each second. Returns how many jobs were taken.
    ///
    /// # Errors
    /// If the database does not answer. Then the leases are watched from the beginning.
    pub async fn watch_leases(&self) -> Result<usize, Error> {
        let outcome = self.look_at_leases().await;
        if outcome.is_err() {
            self.forget_leases();
        }
        outcome
    }

    /// Watches all leases until `count` of them were taken from holders that ended or gave no sign of life, or 20 s have passed.
    /// Returns how many were taken.
    pub(crate) async fn take_lapsed_leases(&self, count: u64) -> Result<u64, Error> {
        const LOOKS: u32 = 20;
        let mut taken = 0;
        for _ in 0..LOOKS {
            taken += self.watch_leases().await? as u64;
            if taken >= count {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(taken)
    }

    /// Forgets what was seen of leases, since a look did not come to its end.
    pub fn forget_leases(&self) {
        for watch in [&self.0.leases.jobs, &self.0.leases.deliveries] {
            watch.lock().unwrap_or_else(PoisonError::into_inner).forget();
        }
    }

    async fn look_at_leases(&self) -> Result<usize, Error> {
        let rule = if self.database().is_sqlite() { FILE_RULE } else { SESSION_RULE };
        let jobs = self.job_leases().await?;
        let deliveries = leases::of_deliveries(&self.database().read()).await?;
        let holders = jobs.iter().chain(&deliveries).filter_map(Lease::holder).collect();
        let lapsed = self.lapsed(&self.0.leases.jobs, jobs, &rule).await?;
        let delivery_rule = LeaseRule { lease: deliveries::LEASE, ..rule };
        let lapsed_deliveries = self.lapsed(&self.0.leases.deliveries, deliveries, &delivery_rule).await?;
        let taken = self.take_jobs(&lapsed).await?;
        self.take_deliveries(&lapsed_deliveries).await?;
        if self.0.leases.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY_EACH) {
            self.database().tidy_holders(holders).await?;
        }
        Ok(taken)
    }

    async fn lapsed(
        &self,
        watch: &Mutex<LeaseWatch>,
        leases: Vec<Lease>,
        rule: &LeaseRule,
    ) -> Result<Vec<Lapsed>, Error> {
        let suspects = {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.look(Instant::now(), leases);
            watch.suspects(rule)
        };
        let absent = self.database().absent(&suspects).await?;
        Ok(watch.lock().unwrap_or_else(PoisonError::into_inner).judge(&absent, rule))
    }

    /// Returns the leases on jobs.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn job_leases(&self) -> Result<Vec<Lease>, Error> {
        Ok(leases::of_jobs(&self.database().read()).await?)
    }

    /// Returns the leases on deliveries.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn delivery_leases(&self) -> Result<Vec<Lease>, Error> {
        Ok(leases::of_deliveries(&self.database().read()).await?)
    }

    /// Takes jobs from holders that lost their leases: they are due again at once, or given up if workers are known to have
    /// died over them again and again. A lease that has changed meanwhile is left alone. Returns how many were taken.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn take_jobs(&self, lapsed: &[Lapsed]) -> Result<usize, Error> {
        let mut taken = 0;
        for some in lapsed.chunks(BATCH) {
            taken += self.take_some_jobs(some).await?;
        }
        Ok(taken)
    }

    async fn take_some_jobs(&self, lapsed: &[Lapsed]) -> Result<usize, Error> {
        let write = self.database().begin().await?;
        let now = write.now().await?;
        let mut taken = Vec::with_capacity(lapsed.len());
        for lapsed in lapsed {
            if let Some(job) = leases::take_job(&*write, lapsed, now).await? {
                let product = images::product_of(&*write, job.image_id).await?;
                taken.push((job, product, lapsed.holder_ended));
            }
        }
        if taken.is_empty() {
            return Ok(0);
        }
        let mut ids: Vec<_> = taken.iter().filter_map(|(_, product, _)| *product).collect();
        ids.sort_unstable();
        ids.dedup();
        products::lock(&*write, &ids).await?;
        let mut steps: Vec<PictureStep> = Vec::new();
        for (job, product, holder_ended) in &taken {
            let failed = end_claim(&write, job, *holder_ended, now).await?;
            let failed = product.zip(failed);
            steps.extend(failed.map(|(product, code)| step(EventKind::ImageFailed, product, job.image_id, Some(code))));
        }
        self.commit_step(write, &ids, &steps, now).await?;
        self.queue().wake();
        Ok(taken.len())
    }

    /// Lets deliveries be sent again whose holders lost their leases. Returns how many there were.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn take_deliveries(&self, lapsed: &[Lapsed]) -> Result<usize, Error> {
        let mut taken = 0;
        for some in lapsed.chunks(BATCH) {
            let write = self.database().begin().await?;
            let now = write.now().await?;
            for lapsed in some {
                taken += usize::from(leases::take_delivery(&*write, &lapsed.lease, now).await?);
            }
            write.commit().await?;
        }
        if taken > 0 {
            self.0.happened.signal();
        }
        Ok(taken)
    }

    /// Keeps waiting times what they were when a clock is wrong: corrects the database's time on SQLite, and lets nothing
    /// wait for a time that a clock which went back has moved far away. Returns how many rows were corrected.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn correct_waiting(&self) -> Result<usize, Error> {
        let shift = self.database().correct_clock().await?;
        if shift != 0 {
            tracing::warn!(shift_micros = shift, "corrected the database's time by the clock of this process");
        }
        let now = self.now().await?;
        if !waiting::any_wrong(&self.database().read(), now).await? {
            return Ok(0);
        }
        let write = self.database().begin().await?;
        let now = write.now().await?;
        let corrected = waiting::correct(&*write, now, CORRECTED_TOGETHER).await?;
        write.commit().await?;
        self.queue().wake();
        Ok(corrected)
    }
}

/// Notes that a claim was lost; returns why the image is given up, if it is.
async fn end_claim(
    write: &Write,
    job: &Taken,
    holder_ended: bool,
    now: Timestamp,
) -> Result<Option<ErrorCode>, db::Error> {
    let losses = leases::count_loss(&**write, job.id, holder_ended).await?;
    let deaths = if losses.ended >= MAX_WORKER_DEATHS { losses.ended } else { job.crashes };
    let error = (holder_ended && deaths >= MAX_CRASHES)
        .then(|| (ErrorCode::Poison, format!("{deaths} workers or decoders died over this image")));
    let shown = error.as_ref().map(|(code, message)| (*code, message.as_str()));
    match shown {
        Some(error) => {
            crashes::bury_unheld(&**write, job.id, error, now).await?;
            images::set_failed(&**write, job.image_id, error, now).await?;
        }
        None => {
            images::set_pending(&**write, job.image_id, None, now).await?;
            if let Some(delay) = loss_delay(losses) {
                leases::postpone(&**write, job.id, now.plus(delay)).await?;
            }
        }
    }
    let failed = shown.map(|(code, _)| code);
    let outcome = if holder_ended { AttemptOutcome::WorkerDied } else { AttemptOutcome::LeaseLost };
    let attempt = Attempt { number: job.attempt, outcome, error, ended_at: now };
    attempts::record(&**write, job.id, &attempt).await?;
    Ok(failed)
}

/// The wait before the next claim of a job that loses its claims again and again, nobody knows why. It is never given up for
/// that, so it must not keep workers busy for ever.
fn loss_delay(losses: Losses) -> Option<Duration> {
    let unexplained = losses.lost - losses.ended - FREE_LOSSES;
    let doublings = u32::try_from(unexplained - 1).ok()?.min(16);
    Some(FIRST_LOSS_DELAY.saturating_mul(1 << doublings).min(MAX_LOSS_DELAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lost_claims_cost_no_wait_and_later_ones_ten_minutes_at_most() {
        let delay = |lost, ended| loss_delay(Losses { lost, ended }).map(|delay| delay.as_secs());
        assert_eq!([delay(1, 0), delay(2, 0), delay(3, 0), delay(4, 0)], [None, None, Some(5), Some(10)]);
        assert_eq!((delay(1_000, 0), delay(19, 19)), (Some(600), None));
    }
}
