//! Watches leases and requeues jobs and deliveries of dead or silent processes.
//!
//! Each process judges leases by its own observations. A lost claim alone never fails an image; many proven worker
//! deaths do.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::{
    catalog::{
        Catalog, Error,
        events::ImageProgress,
        jobs::process::{MAX_CRASHES, step},
    },
    clock::Timestamp,
    code::ErrorCode,
    db::{
        self, Presence, Write,
        events::deliveries,
        jobs::{
            LEASE, attempts, crashes,
            leases::{self, Losses, RecoveredJob},
            waiting,
        },
        products::{self, images},
    },
    domain::{Attempt, AttemptOutcome, EventKind, Lapsed, Lease, LeaseRule, LeaseWatch},
};

/// Number of worker deaths after which an image fails, even if a separate decoder process decodes it.
///
/// Such an image is normally not blamed for the death of a worker. But the system may kill the worker because of the
/// image, for example when memory runs out, and retries must end.
const MAX_WORKER_DEATHS: i32 = 20;
/// Number of unexplained lost claims before the next claim is delayed.
const FREE_LOSSES: i32 = 2;
const FIRST_LOSS_DELAY: Duration = Duration::from_secs(5);
const MAX_LOSS_DELAY: Duration = Duration::from_secs(600);
/// Lock files of dead processes are deleted once per this many checks.
const CLEANUP_INTERVAL_CHECKS: u64 = 60;
/// Leases recovered in one transaction.
const BATCH: usize = 100;
/// Waiting rows corrected in one transaction.
const CORRECTION_BATCH_ROWS: i64 = 1_000;

/// Rule for SQLite: the kernel reports at once whether a process has ended.
const FILE_RULE: LeaseRule = LeaseRule { lease: LEASE, suspicion: Duration::ZERO, absence: Duration::ZERO };
/// Rule for PostgreSQL: a process whose connection broke reconnects within two seconds, and extends its leases every
/// five.
const SESSION_RULE: LeaseRule =
    LeaseRule { lease: LEASE, suspicion: Duration::from_secs(5), absence: Duration::from_secs(5) };

/// The leases that this process observes, and its own presence.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Leases {
    presence: OnceCell<Presence>,
    jobs: Mutex<LeaseWatch>,
    deliveries: Mutex<LeaseWatch>,
    checks: AtomicU64,
}

impl Catalog {
    /// Creates a token for a new lease.
    ///
    /// The token names this process, so the end of the process proves that the lease is lost.
    pub(in crate::catalog) async fn lease_token(&self) -> String {
        match self.0.leases.presence.get_or_try_init(|| self.database().appear()).await {
            Ok(presence) => presence.id().token(),
            Err(error) => {
                tracing::warn!(%error, "presence unavailable: if this process dies, its jobs are requeued late");
                uuid::Uuid::new_v4().simple().to_string()
            }
        }
    }

    /// Takes the leases of holders that ended or were silent for a whole lease.
    ///
    /// Call it every second. Returns how many jobs were requeued. After an error, observation of all leases starts
    /// again.
    pub async fn watch_leases(&self) -> Result<usize, Error> {
        let outcome = self.observe_leases().await;
        if outcome.is_err() {
            self.discard_lease_observations();
        }
        outcome
    }

    /// Watches leases until it has recovered `count` or 20 s have passed; returns how many it recovered.
    pub(crate) async fn take_lapsed_leases(&self, count: u64) -> Result<u64, Error> {
        const MAX_CHECKS: u32 = 20;
        let mut recovered = 0;
        for _ in 0..MAX_CHECKS {
            recovered += self.watch_leases().await? as u64;
            if recovered >= count {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(recovered)
    }

    /// Discards all observations of leases, because a check was interrupted.
    pub fn discard_lease_observations(&self) {
        for watch in [&self.0.leases.jobs, &self.0.leases.deliveries] {
            watch.lock().clear();
        }
    }

    async fn observe_leases(&self) -> Result<usize, Error> {
        let rule = if self.database().is_sqlite() { FILE_RULE } else { SESSION_RULE };
        let jobs = self.job_leases().await?;
        let deliveries = leases::of_deliveries(&self.database().read()).await?;
        let holders = jobs.iter().chain(&deliveries).filter_map(Lease::holder).collect();
        let lapsed = self.lapsed(&self.0.leases.jobs, jobs, &rule).await?;
        let delivery_rule = LeaseRule { lease: deliveries::LEASE, ..rule };
        let lapsed_deliveries = self.lapsed(&self.0.leases.deliveries, deliveries, &delivery_rule).await?;
        let recovered = self.take_jobs(&lapsed).await?;
        self.take_deliveries(&lapsed_deliveries).await?;
        if self.0.leases.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLEANUP_INTERVAL_CHECKS) {
            self.database().tidy_holders(holders).await?;
        }
        Ok(recovered)
    }

    async fn lapsed(
        &self,
        watch: &Mutex<LeaseWatch>,
        leases: Vec<Lease>,
        rule: &LeaseRule,
    ) -> Result<Vec<Lapsed>, Error> {
        let suspects = {
            let mut watch = watch.lock();
            watch.observe(Instant::now(), leases);
            watch.suspects(rule)
        };
        let absent = self.database().absent(&suspects).await?;
        Ok(watch.lock().judge(&absent, rule))
    }

    /// Returns the leases on jobs.
    pub async fn job_leases(&self) -> Result<Vec<Lease>, Error> {
        Ok(leases::of_jobs(&self.database().read()).await?)
    }

    /// Returns the leases on deliveries.
    pub async fn delivery_leases(&self) -> Result<Vec<Lease>, Error> {
        Ok(leases::of_deliveries(&self.database().read()).await?)
    }

    /// Requeues jobs whose leases have lapsed; returns how many.
    ///
    /// A job is due again at once. It becomes a dead letter if too many workers died while processing it. Leases that
    /// have changed since are skipped.
    pub async fn take_jobs(&self, lapsed: &[Lapsed]) -> Result<usize, Error> {
        let mut recovered = 0;
        for some in lapsed.chunks(BATCH) {
            recovered += self.take_some_jobs(some).await?;
        }
        Ok(recovered)
    }

    async fn take_some_jobs(&self, lapsed: &[Lapsed]) -> Result<usize, Error> {
        let write = self.database().begin().await?;
        let now = write.now().await?;
        let mut recovered = Vec::with_capacity(lapsed.len());
        for lapsed in lapsed {
            if let Some(job) = leases::take_job(&*write, lapsed, now).await? {
                let product = images::product_of(&*write, job.image_id).await?;
                recovered.push((job, product, lapsed.holder_ended));
            }
        }
        if recovered.is_empty() {
            return Ok(0);
        }
        let mut ids: Vec<_> = recovered.iter().filter_map(|(_, product, _)| *product).collect();
        ids.sort_unstable();
        ids.dedup();
        products::lock(&*write, &ids).await?;
        let mut steps: Vec<ImageProgress> = Vec::new();
        for (job, product, holder_ended) in &recovered {
            let failed = end_claim(&write, job, *holder_ended, now).await?;
            let failed = product.zip(failed);
            steps.extend(failed.map(|(product, code)| step(EventKind::ImageFailed, product, job.image_id, Some(code))));
        }
        self.commit_step(write, &ids, &steps, now).await?;
        self.queue().wake();
        Ok(recovered.len())
    }

    /// Requeues deliveries whose leases have lapsed; returns how many.
    pub async fn take_deliveries(&self, lapsed: &[Lapsed]) -> Result<usize, Error> {
        let mut recovered = 0;
        for some in lapsed.chunks(BATCH) {
            let write = self.database().begin().await?;
            let now = write.now().await?;
            for lapsed in some {
                recovered += usize::from(leases::take_delivery(&*write, &lapsed.lease, now).await?);
            }
            write.commit().await?;
        }
        if recovered > 0 {
            self.0.event_signal.signal();
        }
        Ok(recovered)
    }

    /// Corrects due times after a jump of a clock; returns how many rows were corrected.
    ///
    /// On SQLite it also corrects the database's time. Rows that a clock jump has moved far into the future become due
    /// in time again.
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
        let corrected = waiting::correct(&*write, now, CORRECTION_BATCH_ROWS).await?;
        write.commit().await?;
        self.queue().wake();
        Ok(corrected)
    }
}

/// Records that a claim was lost; returns the error code if the image fails.
async fn end_claim(
    write: &Write,
    job: &RecoveredJob,
    holder_ended: bool,
    now: Timestamp,
) -> Result<Option<ErrorCode>, db::Error> {
    let losses = leases::count_loss(&**write, job.id, holder_ended).await?;
    let deaths = if losses.ended >= MAX_WORKER_DEATHS { losses.ended } else { job.crashes };
    let error = (holder_ended && deaths >= MAX_CRASHES)
        .then(|| (ErrorCode::Poison, format!("workers or decoders crashed {deaths} times on this image")));
    let shown = error.as_ref().map(|(code, message)| (*code, message.as_str()));
    match shown {
        Some(error) => {
            crashes::mark_dead_without_lease(&**write, job.id, error, now).await?;
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

/// Returns the delay before the next claim of a job with unexplained lost claims.
///
/// Such a job is never a dead letter, so the delay keeps it from occupying workers forever.
fn loss_delay(losses: Losses) -> Option<Duration> {
    let unexplained = losses.lost - losses.ended - FREE_LOSSES;
    let doublings = u32::try_from(unexplained - 1).ok()?.min(16);
    Some(FIRST_LOSS_DELAY.saturating_mul(1 << doublings).min(MAX_LOSS_DELAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lost_claims_cause_no_delay_and_later_ones_ten_minutes_at_most() {
        let delay = |lost, ended| loss_delay(Losses { lost, ended }).map(|delay| delay.as_secs());
        assert_eq!([delay(1, 0), delay(2, 0), delay(3, 0), delay(4, 0)], [None, None, Some(5), Some(10)]);
        assert_eq!((delay(1_000, 0), delay(19, 19)), (Some(600), None));
    }
}
