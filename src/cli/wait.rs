//! Waits until images are final.
//!
//! Without a broker, this process processes the images itself, so that waiting needs no server. With a broker, the
//! workers process them.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    failure::{Exit, Failure},
    progress::Progress,
};
use crate::{app::App, catalog, domain::ImageId};

/// Images per status query.
const CHUNK: usize = 500;
/// Interval of status queries.
const PAUSE: Duration = Duration::from_millis(200);
/// Delay before the message about waiting for the worker's end.
const NOTICE_DELAY: Duration = Duration::from_secs(1);

/// Options of waiting.
pub(super) struct Wait<'a> {
    /// Whether to print no messages.
    pub quiet: bool,
    /// Hint after an interruption.
    pub hint: &'a str,
}

/// Number of ready and failed images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Ready images.
    pub ready: u64,
    /// Failed images.
    pub failed: u64,
}

impl Outcome {
    /// Returns [`Exit::Partly`] if an image failed.
    pub(super) const fn exit(self) -> Exit {
        if self.failed == 0 { Exit::Done } else { Exit::Partly }
    }
}

/// Waits until all `images` are final.
///
/// # Errors
/// If `interrupt` comes first; the worker then returns its unfinished jobs to the queue.
pub(super) async fn until_final(
    app: &App,
    images: &[ImageId],
    wait: Wait<'_>,
    interrupt: &CancellationToken,
) -> Result<Outcome, Failure> {
    let stop = CancellationToken::new();
    let concurrency = if app.settings.rabbitmq_url.is_none() { app.settings.workers } else { 0 };
    let mut work = Box::pin(async {
        if concurrency == 0 {
            std::future::pending().await
        } else {
            Box::pin(app.work(concurrency, None, stop.clone())).await
        }
    });
    let outcome = tokio::select! {
        outcome = watch(app, images, wait.quiet) => outcome.map_err(Failure::from),
        ended = &mut work => return Err(ended.err().map_or_else(
            || Failure::new(Exit::Failed, "the worker ended before all images were processed"),
            Failure::from,
        )),
        () = interrupt.cancelled() => Err(Failure::interrupted(wait.hint)),
    };
    stop.cancel();
    if concurrency > 0 {
        let ended = match tokio::time::timeout(NOTICE_DELAY, &mut work).await {
            Ok(ended) => ended,
            Err(_) => {
                if !wait.quiet {
                    // If stderr is closed, the message is lost.
                    let _ = writeln!(io::stderr(), "finishing the current images; press Ctrl-C again to end at once");
                }
                work.await
            }
        };
        // A job that the worker could not return becomes available when its lease expires.
        if let Err(error) = ended {
            tracing::warn!(%error, "the worker did not shut down cleanly");
        }
    }
    outcome
}

async fn watch(app: &App, images: &[ImageId], quiet: bool) -> Result<Outcome, catalog::Error> {
    let mut shown = Progress::new("processing", images.len() as u64, quiet);
    let mut sum = Outcome::default();
    for chunk in images.chunks(CHUNK) {
        loop {
            let now = app.catalog.progress(chunk).await?;
            let (ready, failed) = (sum.ready + now.ready, sum.failed + now.failed);
            shown.set(ready + failed, failed);
            if now.pending == 0 {
                sum = Outcome { ready, failed };
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(sum)
}
