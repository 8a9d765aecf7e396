//! `pm queue status`; dispatches `pm queue dead`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    args, dead_letters,
    failure::{Exit, Failure},
    output::{Console, Row, seconds},
    signals::unless_stopped,
};
use crate::{api::QueueBody, app::App, domain::QueueStatus};

/// Runs the command.
pub(super) async fn run(
    command: args::Queue,
    app: &App,
    console: &mut Console,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    match command {
        args::Queue::Status => unless_stopped(stop, "nothing was changed", status(app, console)).await,
        args::Queue::Dead { command, paging } => {
            let command = command.unwrap_or(args::Dead::List(paging));
            dead_letters::run(command, app, console, stop).await
        }
    }
}

async fn status(app: &App, console: &mut Console) -> Result<Exit, Failure> {
    let status = app.catalog.queue_status().await?;
    console.single(&StatusRow { status: &status })?;
    match &status.broker {
        Some(Err(error)) => {
            let failure = Failure::because(Exit::Unreachable, anyhow::Error::new(error.clone()));
            Err(failure.context("cannot read the queue's state from the broker").hint("`pm doctor` shows details"))
        }
        _ => Ok(Exit::Done),
    }
}

struct StatusRow<'a> {
    status: &'a QueueStatus,
}

/// Serializes the API's JSON.
impl serde::Serialize for StatusRow<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        QueueBody::new(self.status).serialize(serializer)
    }
}

impl Row for StatusRow<'_> {
    const COLUMNS: &'static [&'static str] =
        &["engine", "queued", "running", "dead", "oldest", "done in the last minute", "messages ready", "consumers"];
    const FIELDS: &'static [&'static str] = &[
        "engine",
        "queued",
        "running",
        "dead",
        "oldest_queued_at",
        "oldest_age_seconds",
        "done_last_minute",
        "broker_ready",
        "broker_consumers",
    ];

    /// Returns the number of waiting jobs.
    fn id(&self) -> String {
        self.status.depth.queued.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let depth = &self.status.depth;
        let (ready, consumers) = self.broker("-", "no answer");
        let oldest = match (depth.oldest, self.status.oldest_age) {
            (Some(since), Some(age)) => format!("{} (since {})", rounded(age), seconds(since)),
            _ => "-".into(),
        };
        vec![
            self.status.engine.to_owned(),
            at_most(depth.queued),
            at_most(depth.running),
            at_most(depth.dead),
            oldest,
            at_most(self.status.done_last_minute),
            ready,
            consumers,
        ]
    }

    fn fields(&self) -> Vec<String> {
        let depth = &self.status.depth;
        let (ready, consumers) = self.broker("", "");
        vec![
            self.status.engine.to_owned(),
            depth.queued.to_string(),
            depth.running.to_string(),
            depth.dead.to_string(),
            depth.oldest.map(|oldest| oldest.to_string()).unwrap_or_default(),
            self.status.oldest_age.map(|age| age.as_secs_f64().to_string()).unwrap_or_default(),
            self.status.done_last_minute.to_string(),
            ready,
            consumers,
        ]
    }
}

impl StatusRow<'_> {
    fn broker(&self, none: &str, silent: &str) -> (String, String) {
        match &self.status.broker {
            None => (none.to_owned(), none.to_owned()),
            Some(Err(_)) => (silent.to_owned(), silent.to_owned()),
            Some(Ok(backlog)) => (backlog.ready.to_string(), backlog.consumers.to_string()),
        }
    }
}

/// Formats a count; the database counts no further than 100,001.
fn at_most(count: u64) -> String {
    if count > 100_000 { "more than 100000".into() } else { count.to_string() }
}

/// Formats a duration in its two largest units: `59s`, `3m 20s`, `5h 12m`, `3d 4h`.
fn rounded(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds @ 3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        seconds => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        let shown = [0, 59, 200, 18_720, 273_600].map(|seconds| rounded(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "59s", "3m 20s", "5h 12m", "3d 4h"]);
    }

    #[test]
    fn a_count_above_100000_is_shown_as_more_than_100000() {
        assert_eq!((at_most(100_000).as_str(), at_most(100_001).as_str()), ("100000", "more than 100000"));
    }
}
