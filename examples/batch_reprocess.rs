//! Requeues every failed image in batches, and processes them with a progress bar.
//!
//! It uses pm as a library: reads the settings as the binary does (`pm.toml`, `.env`, environment), then opens the
//! catalog.
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
};
use tokio_util::sync::CancellationToken;

/// Images that are queued and awaited at a time.
const BATCH: u64 = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The downloader uses TLS; an error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = config::load(&Flags::default(), Path::new("."), std::env::vars())?;
    let concurrency = settings.workers.max(1);
    let app = App::build(settings).await?;

    let stop = CancellationToken::new();
    let queue = async {
        let outcome = reprocess_all(&app).await;
        stop.cancel();
        outcome
    };
    // Leave this out if workers are already running.
    let (outcome, work) = tokio::join!(queue, app.work(concurrency, None, stop.clone()));
    work?;
    let failed = outcome?;
    println!("{failed} images failed again");
    Ok(())
}

/// Number of images that failed again.
async fn reprocess_all(app: &App) -> Result<u64, pm::catalog::Error> {
    let failed = Selection { status: Which::Failed, ..Selection::default() };
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec}, {eta} left").expect("a valid template");
    let bar = ProgressBar::new(app.catalog.count_reprocess(&failed).await?).with_style(style);
    let (mut after, mut failed_again) = (None, 0);
    loop {
        // Starts after the last image of the previous batch, so that an image that fails again is not selected twice.
        let batch = app.catalog.reprocess(&failed, after, BATCH, Some("batch-reprocess")).await?;
        if batch.last.is_none() {
            bar.finish_and_clear();
            return Ok(failed_again);
        }
        after = batch.last;
        failed_again += until_final(app, &batch.images, &bar).await?;
    }
}

/// Waits for a batch; returns the number of failures.
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
