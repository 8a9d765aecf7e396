//! Waiting until pictures are final. Where the database is the queue this process works on them itself, so that waiting
//! needs no server; a broker's messages are left to the workers behind it.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{
    failure::{Exit, Failure},
    progress::Progress,
};
use crate::{app::App, catalog, domain::ImageId, stop};

/// Pictures whose status is asked for at a time.
const CHUNK: usize = 500;
/// How long to wait before it is asked for again.
const PAUSE: Duration = Duration::from_millis(200);
/// Whoever waits longer than this for the worker's end is told why.
const PATIENCE: Duration = Duration::from_secs(1);

/// How waiting behaves.
pub(super) struct Wait<'a> {
    /// Whether nothing is said.
    pub quiet: bool,
    /// How to go on when it is interrupted.
    pub hint: &'a str,
}

/// What became of the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Done well.
    pub ready: u64,
    /// Done badly.
    pub failed: u64,
}

impl Outcome {
    /// Partly done if a picture failed.
    pub(super) const fn exit(self) -> Exit {
        if self.failed == 0 { Exit::Done } else { Exit::Partly }
    }
}

/// Returns once none of `images` is on its way any more.
///
/// # Errors
/// If the database does not answer, or if `interrupt` comes first; work in progress is then handed back before.
pub(super) async fn until_final(
    app: &App,
    images: &[ImageId],
    wait: Wait<'_>,
    interrupt: &stop::Stop,
) -> Result<Outcome, Failure> {
    let (stopper, stop) = stop::channel();
    let concurrency = if app.settings.rabbitmq_url.is_none() { app.settings.workers } else { 0 };
    let mut work = Box::pin(async {
        if concurrency == 0 { std::future::pending().await } else { Box::pin(app.work(concurrency, None, stop)).await }
    });
    let mut interrupt = interrupt.clone();
    let outcome = tokio::select! {
        outcome = watch(app, images, wait.quiet) => outcome.map_err(Failure::from),
        ended = &mut work => return Err(ended.err().map_or_else(
            || Failure::new(Exit::Failed, "the worker ended before the pictures were done"),
            Failure::from,
        )),
        () = interrupt.wanted() => Err(Failure::interrupted(wait.hint)),
    };
    stopper.stop();
    if concurrency > 0 {
        let ended = match tokio::time::timeout(PATIENCE, &mut work).await {
            Ok(ended) => ended,
            Err(_) => {
                if !wait.quiet {
                    // Nobody is left to tell if stderr is closed.
                    let _ = writeln!(io::stderr(), "finishing what is in hand; Ctrl-C again ends at once");
                }
                work.await
            }
        };
        // What a worker could not hand back is found again when its lease runs out.
        if let Err(error) = ended {
            tracing::warn!(%error, "the worker did not end in order");
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
