//! `pm product delete`: confirms, deletes products in batches, and reports missing ones.

use tokio_util::sync::CancellationToken;

use super::{
    args::Format,
    ask,
    failure::{Exit, Failure},
    output::{Console, IdRow},
    progress::Progress,
    signals::unless_stopped,
};
use crate::{
    catalog::{self, Catalog},
    domain::ProductId,
};

/// Products per transaction.
const BATCH: usize = 100;

/// Deletes the products with these ids.
pub(super) async fn run(
    ids: &[i64],
    yes: bool,
    catalog: &Catalog,
    console: &mut Console,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    let mut ids: Vec<_> = ids.iter().copied().map(ProductId).collect();
    ids.sort_unstable();
    ids.dedup();
    if !yes {
        unless_stopped(stop, "nothing was changed", confirm(&ids, catalog)).await?;
    }
    let mut progress = Progress::new("deleting", ids.len() as u64, console.is_quiet());
    let mut deleted = Vec::new();
    for (some, before) in ids.chunks(BATCH).zip((0_u64..).step_by(BATCH)) {
        if stop.is_cancelled() {
            let done = counted(deleted.len());
            return Err(Failure::interrupted(format!("deleted so far: {done}; run it again to continue")));
        }
        deleted.extend(catalog.delete(some).await?);
        progress.set(before + some.len() as u64, 0);
    }
    drop(progress);
    report(&deleted, console)?;
    match missing(&ids, &deleted) {
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}

/// Asks before existing products are deleted.
///
/// # Errors
/// If none of the products exists, or the answer is not yes.
async fn confirm(ids: &[ProductId], catalog: &Catalog) -> Result<(), Failure> {
    let mut found = Vec::new();
    for id in ids {
        match catalog.product(*id).await {
            Ok(_) => found.push(*id),
            Err(catalog::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let question = match &found[..] {
        [] => return missing(ids, &[]).map_or(Ok(()), Err),
        [id] => format!("This deletes product {id} and its images."),
        _ => format!("This deletes {} and their images.", counted(found.len())),
    };
    ask::confirm(&question, false).await
}

/// Returns the failure that names the products of `ids` that are not in `found`.
fn missing(ids: &[ProductId], found: &[ProductId]) -> Option<Failure> {
    let missing: Vec<_> = ids.iter().filter(|id| !found.contains(id)).map(ToString::to_string).collect();
    if missing.is_empty() {
        return None;
    }
    let exit = if found.is_empty() { Exit::NotFound } else { Exit::Partly };
    let products = if missing.len() == 1 { "product" } else { "products" };
    let failure = Failure::new(exit, format!("{products} {} not found", missing.join(", ")));
    Some(failure.hint("`pm product list` shows all products"))
}

fn report(deleted: &[ProductId], console: &mut Console) -> Result<(), Failure> {
    if console.is_quiet() || console.format() != Format::Table {
        let rows: Vec<_> = deleted.iter().map(|id| IdRow { id: id.0 }).collect();
        let mut list = console.list();
        list.page(&rows)?;
        list.finish(None)?;
    } else if !deleted.is_empty() {
        console.say(&format!("deleted: {}", counted(deleted.len())));
    }
    Ok(())
}

fn counted(products: usize) -> String {
    if products == 1 { "1 product".into() } else { format!("{products} products") }
}
