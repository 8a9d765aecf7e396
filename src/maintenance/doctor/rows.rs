//! Checks images and their jobs, and overdue work.

use std::time::{Duration, Instant};

use super::{Finding, Invariant, MOMENT, PAGE};
use crate::{
    catalog::{Catalog, Error},
    db::{
        jobs::LEASE,
        maintenance::invariants::{self, Overdue},
    },
    domain::Lease,
    maintenance::progress::{Step, Watch},
};

/// Deadline of a dispatch. The relay polls every half second.
const DISPATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Deadline of an invalidation. Every two seconds, a sweeper sends those older than two seconds.
const INVALIDATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time until a sweeper recovers an expired lease.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time until a sweeper recovers the lease of a process that is known to have ended.
const ENDED_HOLDER_TIMEOUT: Duration = Duration::from_secs(13);
/// Time in which a busy relay or sweeper finishes at least one batch.
const BATCH: Duration = Duration::from_secs(3);

/// Checks images and their jobs.
///
/// A change of an image and its jobs is one transaction, and a page is one statement, so each page is consistent.
pub(super) async fn images(catalog: &Catalog, watch: &mut Watch<'_>) -> Result<Finding, Error> {
    let mut finding = Finding::new(Invariant::Images);
    let total = invariants::count_images(&catalog.database().read()).await?;
    let mut after = 0;
    loop {
        let page = invariants::images(&catalog.database().read(), after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(finding) };
        after = last.id;
        finding.looked_at += page.len() as u64;
        let odd: Vec<_> = page.iter().filter(|image| !image.is_sound()).map(|image| image.id).collect();
        if !odd.is_empty() {
            tokio::time::sleep(MOMENT).await;
            let again = invariants::images_among(&catalog.database().read(), &odd).await?;
            again.iter().filter(|image| !image.is_sound()).for_each(|image| finding.note(image.id));
        }
        watch(Step { name: "checking images", done: finding.looked_at, total });
    }
}

/// Finds overdue work that makes no progress.
///
/// Only rows that are still the oldest after a pause are reported.
pub(super) async fn overdue(catalog: &Catalog, invariant: Invariant) -> Result<Finding, Error> {
    let mut finding = Finding::new(invariant);
    let (overdue, within) = match invariant {
        Invariant::Outbox => (Overdue::Undispatched, DISPATCH_TIMEOUT),
        _ => (Overdue::Pending, INVALIDATION_TIMEOUT),
    };
    if !catalog.has(invariant) {
        return Ok(finding);
    }
    let before = catalog.now().await?.minus(within);
    let oldest = overdue.oldest(&catalog.database().read(), before, None).await?;
    if oldest.is_empty() {
        return Ok(finding);
    }
    tokio::time::sleep(BATCH).await;
    let still = overdue.oldest(&catalog.database().read(), before, Some(&oldest)).await?;
    if still.is_empty() {
        return Ok(finding);
    }
    still.iter().for_each(|id| finding.note(id));
    finding.broken = finding.broken.max(overdue.count(&catalog.database().read(), before).await?);
    finding.looked_at = finding.broken;
    Ok(finding)
}

/// Finds leases of dead processes.
///
/// Reports a lease that stays unchanged past the deadline of a sweeper, or whose holder has ended. Leases that expire
/// in the future and whose holder lives are skipped, because a heartbeat has just extended them.
pub(super) async fn leases(catalog: &Catalog) -> Result<Finding, Error> {
    let mut finding = Finding::new(Invariant::Leases);
    let all = catalog.job_leases().await?;
    finding.looked_at = all.len() as u64;
    let now = catalog.now().await?;
    let absent = catalog.database().absent(&all.iter().filter_map(Lease::holder).collect()).await?;
    let ended = |lease: &Lease| lease.holder().is_some_and(|holder| absent.contains(&holder));
    let (mut ended, mut silent): (Vec<_>, Vec<_>) =
        all.into_iter().filter(|lease| ended(lease) || lease.until < now).partition(ended);
    let began = Instant::now();
    while !(ended.is_empty() && silent.is_empty()) {
        tokio::time::sleep(MOMENT).await;
        let still = catalog.job_leases().await?;
        ended.retain(|lease| still.contains(lease));
        silent.retain(|lease| still.contains(lease));
        let late = |limit| began.elapsed() > limit;
        let held = [(&mut ended, ENDED_HOLDER_TIMEOUT), (&mut silent, LEASE + RECOVERY_TIMEOUT)];
        for (leases, limit) in held {
            if late(limit) {
                leases.drain(..).for_each(|lease| finding.note(lease.id));
            }
        }
    }
    Ok(finding)
}
