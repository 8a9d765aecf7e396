//! `pm queue dead`: list, show, retry, purge.

use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use super::{
    args::{self, Format, Paging},
    ask,
    failure::{Exit, Failure},
    output::{Console, IdRow, Row, seconds},
    progress::Progress,
    signals::unless_stopped,
    user::flag,
};
use crate::{
    api::DeadLetterBody,
    app::App,
    catalog::{Catalog, Error},
    domain::{Attempt, DeadLetter, DeadQuery, JobId},
};

/// Jobs per transaction.
const BATCH: u64 = 200;

/// Runs the command.
pub(super) async fn run(
    command: args::Dead,
    app: &App,
    console: &mut Console,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    const UNCHANGED: &str = "nothing was changed; run the same command again to restart it";
    let catalog = &app.catalog;
    match command {
        args::Dead::List(paging) => unless_stopped(stop, UNCHANGED, list(&paging, catalog, console)).await,
        args::Dead::Show { id } => unless_stopped(stop, UNCHANGED, show(JobId(id), catalog, console)).await,
        args::Dead::Retry { all: true, .. } => retry_all(catalog, console, stop).await,
        args::Dead::Retry { ids, .. } => retry(&ids, catalog, console, stop).await,
        args::Dead::Purge { yes } => purge(yes, catalog, console, stop).await,
    }
}

async fn list(paging: &Paging, catalog: &Catalog, console: &mut Console) -> Result<Exit, Failure> {
    let mut cursor = paging.cursor.clone();
    let mut list = console.list();
    loop {
        let pairs = [("limit", paging.page_size()), ("cursor", cursor.as_deref())];
        let given = pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        let query = DeadQuery::parse(given).map_err(|invalid| Failure::invalid(&invalid, flag))?;
        let page = catalog.dead_letters(&query).await?;
        let rows: Vec<_> = page.items.iter().map(|letter| LetterRow { letter, history: None }).collect();
        list.page(&rows)?;
        cursor = page.next_cursor;
        if cursor.is_none() || !paging.all {
            list.finish(cursor.as_deref())?;
            return Ok(Exit::Done);
        }
    }
}

async fn show(id: JobId, catalog: &Catalog, console: &mut Console) -> Result<Exit, Failure> {
    let (letter, attempts) = catalog.dead_letter(id).await.map_err(explained)?;
    console.single(&LetterRow { letter: &letter, history: Some(&attempts) })?;
    if console.format() == Format::Table && !console.is_quiet() && !attempts.is_empty() {
        let rows = attempts.iter().map(|attempt| {
            let (code, message) = code_and_message(attempt.error.as_ref());
            vec![attempt.number.to_string(), attempt.outcome.as_str().into(), code, message, seconds(attempt.ended_at)]
        });
        console.line("")?;
        console.table(&["attempt", "outcome", "code", "message", "ended"], rows.collect::<Vec<_>>())?;
    }
    Ok(Exit::Done)
}

/// Requeues each dead letter; a refused one does not stop the others.
async fn retry(
    ids: &[i64],
    catalog: &Catalog,
    console: &mut Console,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    let mut progress = Progress::new("queueing", ids.len() as u64, console.is_quiet());
    let (mut queued, mut refused) = (Vec::new(), Vec::new());
    for id in ids {
        if stop.is_cancelled() {
            return Err(Failure::interrupted(format!("queued so far: {}; run it again to continue", queued.len())));
        }
        match catalog.retry_dead(JobId(*id), None).await {
            Ok(_) => queued.push(IdRow { id: *id }),
            Err(error @ (Error::NotFound { .. } | Error::Conflict(_))) => refused.push(error),
            Err(error) => return Err(error.into()),
        }
        progress.set((queued.len() + refused.len()) as u64, refused.len() as u64);
    }
    drop(progress);
    write_queued(&queued, console)?;
    let Some(first) = refused.first() else { return Ok(Exit::Done) };
    let none_was_there = queued.is_empty() && refused.iter().all(|error| matches!(error, Error::NotFound { .. }));
    let exit = match (queued.is_empty(), none_was_there) {
        (true, true) => Exit::NotFound,
        (true, false) if refused.len() == 1 => return Err(explained(first.clone())),
        (true, false) => Exit::Failed,
        (false, _) => Exit::Partly,
    };
    let sentences: Vec<_> = refused.iter().map(ToString::to_string).collect();
    Err(Failure::new(exit, sentences.join("\n")).hint(HINT))
}

async fn retry_all(catalog: &Catalog, console: &mut Console, stop: &CancellationToken) -> Result<Exit, Failure> {
    let until = catalog.now().await?;
    let total = catalog.depth().await?.dead;
    let mut progress = Progress::new("queueing", total, console.is_quiet());
    let (mut after, mut queued) = (None, 0_u64);
    let shows_ids = console.is_quiet() || console.format() != Format::Table;
    let mut list = console.list();
    loop {
        if stop.is_cancelled() {
            return Err(Failure::interrupted(format!("queued so far: {queued}; run it again to continue")));
        }
        let batch = catalog.retry_all_dead(after, until, BATCH).await?;
        queued += batch.jobs.len() as u64;
        progress.set(queued, 0);
        if shows_ids {
            let rows: Vec<_> = batch.jobs.iter().map(|id| IdRow { id: id.0 }).collect();
            list.page(&rows)?;
        }
        after = batch.last;
        if after.is_none() {
            break;
        }
    }
    drop(progress);
    if shows_ids {
        list.finish(None)?;
    }
    console.say(&format!("requeued: {queued}"));
    Ok(Exit::Done)
}

async fn purge(yes: bool, catalog: &Catalog, console: &mut Console, stop: &CancellationToken) -> Result<Exit, Failure> {
    let until = catalog.now().await?;
    let total = catalog.depth().await?.dead;
    if total > 0 {
        let question = format!("This deletes {total} dead letters; their images stay failed.");
        unless_stopped(stop, "nothing was changed", ask::confirm(&question, yes)).await?;
    }
    let mut progress = Progress::new("removing", total, console.is_quiet());
    let mut removed = 0;
    loop {
        if stop.is_cancelled() {
            return Err(Failure::interrupted(format!("deleted so far: {removed}; run it again to continue")));
        }
        let some = catalog.purge_dead(until, BATCH).await?;
        if some == 0 {
            break;
        }
        removed += some;
        progress.set(removed, 0);
    }
    drop(progress);
    console.say(&format!("deleted: {removed}"));
    Ok(Exit::Done)
}

fn write_queued(queued: &[IdRow], console: &mut Console) -> Result<(), Failure> {
    if console.is_quiet() || console.format() != Format::Table {
        let mut list = console.list();
        list.page(queued)?;
        list.finish(None)?;
    } else if !queued.is_empty() {
        console.say(&format!("requeued: {}", queued.len()));
    }
    Ok(())
}

const HINT: &str = "`pm queue dead` lists them";

fn explained(error: Error) -> Failure {
    let is_about_the_job = matches!(error, Error::NotFound { .. } | Error::Conflict(_));
    let failure = Failure::from(error);
    if is_about_the_job { failure.hint(HINT) } else { failure }
}

fn code_and_message(error: Option<&(crate::code::ErrorCode, String)>) -> (String, String) {
    error.map(|(code, message)| (code.to_string(), message.clone())).unwrap_or_default()
}

/// A dead letter, in a list or alone with its attempts.
struct LetterRow<'a> {
    letter: &'a DeadLetter,
    history: Option<&'a [Attempt]>,
}

/// Serializes the API's JSON.
impl Serialize for LetterRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = match self.history {
            Some(attempts) => DeadLetterBody::with_history(self.letter, attempts),
            None => DeadLetterBody::new(self.letter),
        };
        body.serialize(serializer)
    }
}

impl Row for LetterRow<'_> {
    const COLUMNS: &'static [&'static str] = &["job", "product", "image", "code", "message", "attempts", "died at"];
    const FIELDS: &'static [&'static str] = &[
        "id",
        "product_id",
        "image_id",
        "source",
        "code",
        "message",
        "attempts",
        "crashes",
        "request_id",
        "queued_at",
        "died_at",
    ];

    fn id(&self) -> String {
        self.letter.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let letter = self.letter;
        let (code, message) = code_and_message(letter.error.as_ref());
        let numbers = [letter.id.to_string(), letter.product_id.to_string(), letter.image_id.to_string()];
        let rest = [code, message, letter.attempts.to_string(), seconds(letter.died_at)];
        numbers.into_iter().chain(rest).collect()
    }

    fn fields(&self) -> Vec<String> {
        let letter = self.letter;
        let (code, message) = code_and_message(letter.error.as_ref());
        vec![
            letter.id.to_string(),
            letter.product_id.to_string(),
            letter.image_id.to_string(),
            letter.source.shown(),
            code,
            message,
            letter.attempts.to_string(),
            letter.crashes.to_string(),
            letter.request_id.clone().unwrap_or_default(),
            letter.queued_at.to_string(),
            letter.died_at.to_string(),
        ]
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let letter = self.letter;
        let (code, message) = code_and_message(letter.error.as_ref());
        vec![
            ("job", letter.id.to_string()),
            ("product", letter.product_id.to_string()),
            ("image", letter.image_id.to_string()),
            ("source", letter.source.shown()),
            ("code", code),
            ("message", message),
            ("attempts", letter.attempts.to_string()),
            ("crashes", letter.crashes.to_string()),
            ("request", letter.request_id.clone().unwrap_or_else(|| "-".into())),
            ("queued", seconds(letter.queued_at)),
            ("died", seconds(letter.died_at)),
        ]
    }
}
