//! Invariants of rows alone: pictures and their jobs, and work that should have been done by now.

use std::time::Duration;

use super::{Finding, Invariant, MOMENT, PAGE};
use crate::{
    catalog::{
        Catalog, Error,
        step::{Step, Watch},
    },
    clock::Timestamp,
    db::invariants::{self, Overdue},
};

/// The relay looks each half second.
const DISPATCHED_WITHIN: Duration = Duration::from_secs(5);
/// A sweeper takes up what is two seconds old each two seconds; so it does with leases that ran out.
const SWEPT_WITHIN: Duration = Duration::from_secs(10);
/// A relay or a sweeper that has much to do gets on by a batch in this time.
const BATCH: Duration = Duration::from_secs(3);

/// Every change of a picture's status and of its jobs is one transaction, and a page is one statement.
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
        watch(Step { name: "looking at images", done: finding.looked_at, total });
    }
}

/// What is behind and gets on is no finding: only rows that are the oldest twice in a row are.
pub(super) async fn overdue(catalog: &Catalog, invariant: Invariant) -> Result<Finding, Error> {
    let mut finding = Finding::new(invariant);
    let (overdue, within) = match invariant {
        Invariant::Outbox => (Overdue::Undispatched, DISPATCHED_WITHIN),
        Invariant::Invalidations => (Overdue::Untold, SWEPT_WITHIN),
        _ => (Overdue::Leased, SWEPT_WITHIN),
    };
    if !catalog.has(invariant) {
        return Ok(finding);
    }
    let before = Timestamp::now().minus(within);
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
