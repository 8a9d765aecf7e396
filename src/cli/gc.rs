//! `pm gc`: deletes unreferenced blobs and unfinished files of killed processes.

use serde::Serialize;

use super::{
    failure::{Exit, Failure},
    output::{Console, Row},
    progress::Steps,
};
use crate::{
    app::App,
    blobs::BlobKey,
    maintenance::{Collected, Mode},
};

/// Runs the command; `--quiet` prints only the keys.
pub(super) async fn run(dry_run: bool, app: &App, console: &mut Console) -> Result<Exit, Failure> {
    let mode = if dry_run { Mode::DryRun } else { Mode::Remove };
    let quiet = console.is_quiet();
    let mut steps = Steps::new(quiet);
    let mut written = Ok(());
    let mut report = |key: &BlobKey| {
        if quiet && written.is_ok() {
            written = console.line(key.as_str());
        }
    };
    let collected = app.catalog.collect(mode, &mut |step| steps.show(step), &mut report).await;
    drop(steps);
    written?;
    let collected = collected?;
    if !console.is_quiet() {
        console.single(&Summary::new(dry_run, collected))?;
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Summary {
    dry_run: bool,
    removed: u64,
    bytes: u64,
    young: u64,
    unfinished: u64,
}

impl Summary {
    const fn new(dry_run: bool, collected: Collected) -> Self {
        let Collected { removed, bytes, young, unfinished } = collected;
        Self { dry_run, removed, bytes, young, unfinished }
    }
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] = &["removed", "bytes", "kept because young", "unfinished files removed"];
    const FIELDS: &'static [&'static str] = &["dry_run", "removed", "bytes", "young", "unfinished"];

    fn id(&self) -> String {
        self.removed.to_string()
    }

    fn cells(&self) -> Vec<String> {
        [self.removed, self.bytes, self.young, self.unfinished].map(|count| count.to_string()).into()
    }

    fn fields(&self) -> Vec<String> {
        let counts = [self.removed, self.bytes, self.young, self.unfinished].map(|count| count.to_string());
        [self.dry_run.to_string()].into_iter().chain(counts).collect()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        const WOULD: [&str; 4] = [
            "would be removed (dry run)",
            "bytes that would be freed",
            "kept because young",
            "unfinished files that would be removed",
        ];
        let names = if self.dry_run { &WOULD } else { Self::COLUMNS };
        names.iter().copied().zip(self.cells()).collect()
    }
}
