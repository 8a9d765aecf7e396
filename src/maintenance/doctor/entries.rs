//! Checks that cache entries equal their rows.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Finding, Invariant, PAGE};
use crate::{
    cache::Entry,
    catalog::{Body, Catalog, Error},
    db::maintenance::invariants,
    domain::ProductId,
    maintenance::progress::{Step, Watch},
};

/// Delay before a wrong entry is checked again.
///
/// A write invalidates the cache before it returns. If its process dies, a sweeper invalidates the cache within four
/// seconds. An entry that is still wrong and unchanged after this delay violates the invariant.
const INVALIDATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Entries read concurrently.
const MAX_CONCURRENT_READS: usize = 16;

pub(super) async fn cached(catalog: &Catalog, watch: &mut Watch<'_>) -> Result<Finding, Error> {
    let mut finding = Finding::new(Invariant::Entries);
    let mut cursor = 0;
    loop {
        let listed = catalog.cache().listed(cursor).await;
        let (next, ids) = listed.map_err(|error| Error::unavailable("cache", error))?;
        for some in ids.chunks(PAGE as usize) {
            let odd = wrong_entries(catalog, some).await?;
            finding.looked_at += some.len() as u64;
            note_still_wrong(catalog, odd, &mut finding).await?;
            watch(Step { name: "checking cache entries", done: finding.looked_at, total: 0 });
        }
        cursor = next;
        if cursor == 0 {
            return Ok(finding);
        }
    }
}

/// Returns the entries that differ from their rows. Rows are read after the entries.
async fn wrong_entries(catalog: &Catalog, ids: &[ProductId]) -> Result<Vec<(ProductId, Entry)>, Error> {
    let found = stream::iter(ids).map(|id| async move {
        let entry = catalog.cache().look(*id).await.map_err(|error| Error::unavailable("cache", error))?;
        Ok::<_, Error>(entry.map(|entry| (*id, entry)))
    });
    let found: Vec<_> = found.buffer_unordered(MAX_CONCURRENT_READS).try_collect().await?;
    let mut fresh: HashMap<ProductId, Bytes> = HashMap::new();
    let snapshot = catalog.database().snapshot().await?;
    for product in invariants::products(&snapshot, ids).await? {
        fresh.insert(product.id, Body::of(&product, catalog.links())?);
    }
    let is_wrong = |(id, entry): &(ProductId, Entry)| match entry {
        // The cache returns only bodies of this process's shape, so equal rows have equal bodies.
        Entry::Value(body) => fresh.get(id) != Some(body),
        Entry::Absent => fresh.contains_key(id),
    };
    Ok(found.into_iter().flatten().filter(is_wrong).collect())
}

async fn note_still_wrong(catalog: &Catalog, odd: Vec<(ProductId, Entry)>, finding: &mut Finding) -> Result<(), Error> {
    if odd.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(INVALIDATION_TIMEOUT).await;
    let ids: Vec<_> = odd.iter().map(|(id, _)| *id).collect();
    for again in wrong_entries(catalog, &ids).await? {
        // A body contains its version: equal bytes mean that the entry was not rewritten.
        if odd.contains(&again) {
            finding.note(again.0);
        }
    }
    Ok(())
}
