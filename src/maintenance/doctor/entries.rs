//! The invariant between rows and the cache: an entry is what its row gives now.

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

/// A write is told to the cache before it is answered; should its process die in between, a sweeper tells the cache within
/// four seconds. Only an entry that is the same after this, and wrong still, was forgotten.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// Entries that are read at a time.
const AT_ONCE: usize = 16;

pub(super) async fn cached(catalog: &Catalog, watch: &mut Watch<'_>) -> Result<Finding, Error> {
    let mut finding = Finding::new(Invariant::Entries);
    let mut cursor = 0;
    loop {
        let listed = catalog.cache().listed(cursor).await;
        let (next, ids) = listed.map_err(|error| Error::away("cache", error))?;
        for some in ids.chunks(PAGE as usize) {
            let odd = wrong_entries(catalog, some).await?;
            finding.looked_at += some.len() as u64;
            note_still_wrong(catalog, odd, &mut finding).await?;
            watch(Step { name: "looking at the cache", done: finding.looked_at, total: 0 });
        }
        cursor = next;
        if cursor == 0 {
            return Ok(finding);
        }
    }
}

/// Entries that differ from what their rows give, which are read after them.
async fn wrong_entries(catalog: &Catalog, ids: &[ProductId]) -> Result<Vec<(ProductId, Entry)>, Error> {
    let found = stream::iter(ids).map(|id| async move {
        let entry = catalog.cache().look(*id).await.map_err(|error| Error::away("cache", error))?;
        Ok::<_, Error>(entry.map(|entry| (*id, entry)))
    });
    let found: Vec<_> = found.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut fresh: HashMap<ProductId, Bytes> = HashMap::new();
    let snapshot = catalog.database().snapshot().await?;
    for product in invariants::products(&snapshot, ids).await? {
        fresh.insert(product.id, Body::of(&product, catalog)?);
    }
    let is_wrong = |(id, entry): &(ProductId, Entry)| match entry {
        // The tag follows from the JSON, and programs of another version make another one from it.
        Entry::Value(body) => fresh.get(id).cloned().and_then(Body::json_of) != Body::json_of(body.clone()),
        Entry::Absent => fresh.contains_key(id),
    };
    Ok(found.into_iter().flatten().filter(is_wrong).collect())
}

async fn note_still_wrong(catalog: &Catalog, odd: Vec<(ProductId, Entry)>, finding: &mut Finding) -> Result<(), Error> {
    if odd.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(TOLD_WITHIN).await;
    let ids: Vec<_> = odd.iter().map(|(id, _)| *id).collect();
    for again in wrong_entries(catalog, &ids).await? {
        // A body tells its version: the same bytes are the same entry, and were not written since.
        if odd.contains(&again) {
            finding.note(again.0);
        }
    }
    Ok(())
}
