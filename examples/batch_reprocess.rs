//! Queues every failed picture again, batch by batch, and works on them until none is left, with a progress bar.
//!
//! It uses pm as a library: settings as the binary reads them (`pm.toml`, `.env`, the environment), then the catalogue.
//!
//! ```sh
//! cargo run --release --example batch_reprocess
//! ```

use std::{error::Error, path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use pm::{
    app::App,
    catalog::{Selection, Which},
    config::{self, Flags},
    domain::ImageId,
    stop,
};

/// Pictures queued and waited for at a time.
const BATCH: u64 = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The downloader speaks TLS; an error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = config::load(&Flags::default(), Path::new("."), std::env::vars())?;
    let concurrency = settings.workers.max(1);
    let app = App::build(settings).await?;

    let (stopper, stop) = stop::channel();
    let queue = async {
        let outcome = reprocess_all(&app).await;
        stopper.stop();
        outcome
    };
    // Whoever has workers running already can leave this one out.
    let (outcome, work) = tokio::join!(queue, app.work(concurrency, None, stop));
    work?;
    let failed = outcome?;
    println!("{failed} pictures failed again");
    Ok(())
}

/// How many failed again.
async fn reprocess_all(app: &App) -> Result<u64, pm::catalog::Error> {
    let failed = Selection { status: Which::Failed, ..Selection::default() };
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec}, {eta} left").expect("a valid template");
    let bar = ProgressBar::new(app.catalog.count_reprocess(&failed).await?).with_style(style);
    let (mut after, mut failed_again) = (None, 0);
    loop {
        // Beginning after the last picture of the batch before, so that one that fails again is not met twice.
        let batch = app.catalog.reprocess(&failed, after, BATCH, Some("batch-reprocess")).await?;
        if batch.last.is_none() {
            bar.finish_and_clear();
            return Ok(failed_again);
        }
        after = batch.last;
        failed_again += until_final(app, &batch.images, &bar).await?;
    }
}

/// Waits for a batch; how many of it failed.
async fn until_final(app: &App, images: &[ImageId], bar: &ProgressBar) -> Result<u64, pm::catalog::Error> {
    let before = bar.position();
    loop {
        let progress = app.catalog.progress(images).await?;
        bar.set_position(before + progress.ready + progress.failed);
        if progress.pending == 0 {
            return Ok(progress.failed);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
