//! Checks that referenced blobs exist and stored blobs are referenced.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Depth, EXAMPLES, Finding, Invariant, MOMENT, PAGE};
use crate::{
    blobs::{BlobKey, State},
    catalog::{Catalog, Error},
    db::blobs::references::{self, Reference, Referrer},
    maintenance::{
        gc::{GRACE, is_old},
        progress::{Step, Watch},
    },
};

/// Blobs read concurrently.
const MAX_CONCURRENT_CHECKS: usize = 8;

pub(super) async fn blobs(
    catalog: &Catalog,
    invariant: Invariant,
    depth: Depth,
    watch: &mut Watch<'_>,
) -> Result<Finding, Error> {
    let mut finding = Finding::new(invariant);
    let (referrers, name): (&[Referrer], _) = match invariant {
        Invariant::Sources => (&[Referrer::Source], "checking sources"),
        _ => (&[Referrer::Rendition, Referrer::Variant], "checking blobs"),
    };
    for referrer in referrers {
        blobs_of(catalog, *referrer, depth, &mut finding, (name, watch)).await?;
    }
    Ok(finding)
}

async fn blobs_of(
    catalog: &Catalog,
    referrer: Referrer,
    depth: Depth,
    finding: &mut Finding,
    (name, watch): (&'static str, &mut Watch<'_>),
) -> Result<(), Error> {
    let total = finding.looked_at + referrer.count(&catalog.database().read()).await?;
    let mut after = String::new();
    loop {
        let page = referrer.page(&catalog.database().read(), &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.key);
        let checks = stream::iter(&page).map(|reference| async move {
            let whole = is_whole(catalog, reference, depth).await?;
            Ok::<_, Error>((!whole).then_some(reference))
        });
        let mut checks = checks.buffer_unordered(MAX_CONCURRENT_CHECKS);
        let mut odd = Vec::new();
        while let Some(reference) = checks.try_next().await? {
            odd.extend(reference);
            finding.looked_at += 1;
            watch(Step { name, done: finding.looked_at, total: total.max(finding.looked_at) });
        }
        note_still_broken(catalog, &odd, depth, finding).await?;
    }
}

/// Checks blobs again, because a replaced blob may have been deleted since its row was read.
async fn note_still_broken(
    catalog: &Catalog,
    odd: &[&Reference],
    depth: Depth,
    finding: &mut Finding,
) -> Result<(), Error> {
    if odd.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(MOMENT).await;
    for reference in odd {
        let broken = !is_whole(catalog, reference, depth).await?;
        if broken && references::unreferenced(&catalog.database().read(), &[&reference.key]).await?.is_empty() {
            finding.note(&reference.key);
        }
    }
    Ok(())
}

async fn is_whole(catalog: &Catalog, reference: &Reference, depth: Depth) -> Result<bool, Error> {
    let Some(key) = BlobKey::parse(&reference.key) else { return Ok(false) };
    let right = |bytes: u64| reference.bytes.is_none_or(|known| u64::try_from(known) == Ok(bytes));
    let store = catalog.blobs();
    Ok(match depth {
        Depth::Quick => store.find(&key).await?.is_some_and(|found| right(found.size)),
        Depth::Full => matches!(store.examine(&key).await?, State::Whole { bytes } if right(bytes)),
    })
}

pub(super) async fn orphans(catalog: &Catalog, watch: &mut Watch<'_>) -> Result<Finding, Error> {
    let mut finding = Finding::new(Invariant::Orphans);
    let mut listed = catalog.blobs().list().try_chunks(PAGE as usize);
    while let Some(page) = listed.try_next().await.map_err(|broken| broken.1)? {
        finding.looked_at += page.len() as u64;
        let old: Vec<_> = page.iter().filter(|blob| is_old(blob)).map(|blob| blob.key.as_str()).collect();
        let orphans = references::unreferenced(&catalog.database().read(), &old).await?;
        note_still_orphans(catalog, &orphans, &mut finding).await?;
        watch(Step { name: "searching for orphans", done: finding.looked_at, total: 0 });
    }
    Ok(finding)
}

/// Checks orphans again, because a job may have renewed or referenced them since.
async fn note_still_orphans(catalog: &Catalog, orphans: &[String], finding: &mut Finding) -> Result<(), Error> {
    if orphans.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(MOMENT).await;
    let keys: Vec<_> = orphans.iter().map(String::as_str).collect();
    for key in references::unreferenced(&catalog.database().read(), &keys).await? {
        let Some(parsed) = BlobKey::parse(&key) else { continue };
        if catalog.blobs().find(&parsed).await?.is_some_and(|blob| is_old(&blob)) {
            finding.note(key);
        }
    }
    Ok(())
}

pub(super) async fn unfinished(catalog: &Catalog) -> Result<Finding, Error> {
    let found = catalog.blobs().unfinished(GRACE, EXAMPLES).await?;
    let broken = found.count;
    Ok(Finding { looked_at: broken, broken, examples: found.examples, ..Finding::new(Invariant::Unfinished) })
}
