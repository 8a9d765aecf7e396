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
use crate::{catalog::Catalog, domain::ProductId};

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
    let question = format!("This deletes {} and all images.", counted(ids.len()));
    unless_stopped(stop, "nothing was changed", ask::confirm(&question, yes)).await?;
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
    let missing: Vec<_> = ids.iter().filter(|id| !deleted.contains(id)).map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    let exit = if deleted.is_empty() { Exit::NotFound } else { Exit::Partly };
    let products = if missing.len() == 1 { "product" } else { "products" };
    let failure = Failure::new(exit, format!("{products} {} not found", missing.join(", ")));
    Err(failure.hint("`pm product list` shows all products"))
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
