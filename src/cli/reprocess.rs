//! `pm reprocess`: queues images again in batches.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    args::{self, Format},
    ask,
    failure::{Exit, Failure},
    output::{Console, Row, image_count},
    progress::Progress,
    user::flag,
    wait::{self, Wait},
};
use crate::{
    app::App,
    catalog::{self, Selection, Which},
    clock::Timestamp,
    config,
    domain::{ImageId, ProductId, UserId},
};

/// Images per transaction.
const BATCH: u64 = 500;
/// More images than this require a confirmation.
const MAX_UNCONFIRMED_IMAGES: u64 = 10;

/// Runs the command.
pub(super) async fn run(
    command: args::Reprocess,
    app: &App,
    console: &mut Console,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    let selection = selection(&command, app.catalog.now().await?)?;
    let total = app.catalog.count_reprocess(&selection).await?;
    if command.dry_run {
        count(total, console)?;
        return Ok(Exit::Done);
    }
    if total > MAX_UNCONFIRMED_IMAGES {
        ask::confirm(&format!("This processes {} again.", image_count(total)), command.yes).await?;
    }
    let images = queue(app, &selection, total, console, stop).await?;
    if images.is_empty() {
        console.say("no image matched; nothing was queued");
        return Ok(Exit::Done);
    }
    if !command.wait {
        console.say(&format!("queued again: {}", image_count(images.len() as u64)));
        return Ok(Exit::Done);
    }
    let hint = "the images stay queued; a running `pm serve` or `pm worker` processes them";
    let outcome = wait::until_final(app, &images, Wait { quiet: console.is_quiet(), hint }, stop).await?;
    console.say(&format!("ready: {}, failed: {}", outcome.ready, outcome.failed));
    Ok(outcome.exit())
}

fn count(total: u64, console: &mut Console) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Count {
        images: u64,
    }
    match console.format() {
        Format::Json | Format::Ndjson => console.json_line(&Count { images: total })?,
        Format::Csv => console.line(&format!("images\n{total}"))?,
        Format::Table if console.is_quiet() => console.line(&total.to_string())?,
        Format::Table => console.line(&format!("{} would be processed again", image_count(total)))?,
    }
    Ok(())
}

/// Queues the images again; prints their ids except in table format.
async fn queue(
    app: &App,
    selection: &Selection,
    total: u64,
    console: &mut Console,
    stop: &CancellationToken,
) -> Result<Vec<ImageId>, Failure> {
    let mut progress = Progress::new("queueing", total, console.is_quiet());
    let mut images = Vec::new();
    let mut after = None;
    let shows_ids = console.is_quiet() || console.format() != Format::Table;
    let mut list = console.list();
    while !stop.is_cancelled() {
        let batch = app.catalog.reprocess(selection, after, BATCH, None).await.map_err(|error| match error {
            catalog::Error::Invalid(invalid) => Failure::invalid(&invalid, flag),
            error => error.into(),
        })?;
        if batch.last.is_none() {
            if shows_ids {
                list.page::<ImageRow>(&[])?;
                list.finish(None)?;
            }
            return Ok(images);
        }
        after = batch.last;
        if shows_ids {
            let rows: Vec<_> = batch.images.iter().map(|id| ImageRow { image_id: *id }).collect();
            list.page(&rows)?;
        }
        images.extend(batch.images);
        progress.set(images.len() as u64, 0);
    }
    Err(Failure::interrupted(format!("queued so far: {}; run it again to continue", image_count(images.len() as u64))))
}

fn selection(command: &args::Reprocess, now: Timestamp) -> Result<Selection, Failure> {
    let wrong = |flag: &str, reason: String| Failure::new(Exit::Usage, format!("{flag} {reason}"));
    let user_id = command.user_id.as_deref().map(UserId::parse).transpose();
    let since = command.since.as_deref().map(|text| since(text, now)).transpose();
    Ok(Selection {
        products: command.products.iter().copied().map(ProductId).collect(),
        user_id: user_id.map_err(|reason| wrong("--user-id", reason))?,
        status: match command.status {
            args::Which::Failed => Which::Failed,
            args::Which::Ready => Which::Ready,
            args::Which::All => Which::All,
        },
        presets: Some(command.presets.clone()).filter(|presets| !presets.is_empty()),
        since: since.map_err(|reason| wrong("--since", reason))?,
    })
}

/// Parses a timestamp, or a duration before `now`.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Some(moment) = Timestamp::parse(text) {
        return Ok(moment);
    }
    let ago = config::parse_duration(text);
    ago.map(|span| now.minus(span))
        .map_err(|_| "is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 2h or 3d".into())
}

#[derive(Serialize)]
struct ImageRow {
    image_id: ImageId,
}

impl Row for ImageRow {
    const COLUMNS: &'static [&'static str] = &["image"];
    const FIELDS: &'static [&'static str] = &["image_id"];

    fn id(&self) -> String {
        self.image_id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id()]
    }

    fn fields(&self) -> Vec<String> {
        vec![self.id()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_accepts_a_timestamp_or_a_duration_before_now() {
        let now = Timestamp::parse("2026-01-31T12:00:00Z").expect("a time");
        assert_eq!(since("2h", now).map(|t| t.to_string()), Ok("2026-01-31T10:00:00Z".into()));
        assert_eq!(since("3d", now).map(|t| t.to_string()), Ok("2026-01-28T12:00:00Z".into()));
        assert_eq!(since("2026-01-01T00:00:00+01:00", now).map(|t| t.to_string()), Ok("2025-12-31T23:00:00Z".into()));
        assert!(since("yesterday", now).is_err());
    }
}
