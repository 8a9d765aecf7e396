//! `pm backup` and `pm restore`: the whole catalogue into a directory and back.

use std::path::Path;

use serde::Serialize;

use super::{
    ask,
    failure::{Exit, Failure},
    output::{Console, Row},
    progress::Steps,
};
use crate::{
    app::{Access, App},
    catalog::backup::{self, Restored, Saved},
    config::Settings,
};

/// Runs `pm backup`; partly done if the store lacked blobs.
pub(super) async fn save(directory: &Path, app: &App, console: &mut Console) -> Result<Exit, Failure> {
    let mut steps = Steps::new(console.is_quiet());
    let saved = app.catalog.backup(directory, &mut |step| steps.show(step)).await;
    drop(steps);
    let saved = saved?;
    for key in &saved.missing {
        console.say(&format!("missing: {key} is not in the store, or not what its key says"));
    }
    if saved.missing_count > 0 {
        console
            .say("the rest is in the backup; `pm doctor` names what is missing, `pm reprocess` makes renditions anew");
    }
    console.single(&SavedRow::new(directory, &saved))?;
    Ok(if saved.missing_count == 0 { Exit::Done } else { Exit::Partly })
}

/// Runs `pm restore`: the backup is checked before anything is connected or made.
pub(super) async fn restore(
    directory: &Path,
    yes: bool,
    mut settings: Settings,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let mut steps = Steps::new(console.is_quiet());
    let checked = backup::check(directory, &mut |step| steps.show(step)).await;
    drop(steps);
    let checked = checked?;
    let question = format!(
        "This restores {} products, as they were on {}, into {} and {}.",
        checked.products(),
        checked.created_at(),
        settings.database,
        settings.storage_url
    );
    ask::confirm(&question, yes).await?;
    settings.auto_migrate = true;
    let app = Box::pin(App::open(settings, Access::Create)).await?;
    let mut steps = Steps::new(console.is_quiet());
    let restored = app.catalog.restore(&checked, &mut |step| steps.show(step)).await;
    drop(steps);
    let restored = restored?;
    if restored.missing > 0 {
        console.say("some blobs were missing when the backup was made; `pm doctor` names them");
    }
    console.single(&RestoredRow(restored))?;
    Ok(if restored.missing == 0 { Exit::Done } else { Exit::Partly })
}

impl From<backup::Error> for Failure {
    fn from(error: backup::Error) -> Self {
        match error {
            backup::Error::Catalog(error) => error.into(),
            backup::Error::Refused { hint, .. } => Self::because(Exit::Failed, error).hint(hint),
            backup::Error::Damaged(_) => {
                Self::because(Exit::Failed, error).hint("nothing was changed; take another backup")
            }
            backup::Error::File { .. } => Self::because(Exit::Failed, error),
        }
    }
}

#[derive(Serialize)]
struct SavedRow {
    directory: String,
    products: u64,
    references: u64,
    copied: u64,
    bytes: u64,
    missing: u64,
    missing_keys: Vec<String>,
}

impl SavedRow {
    fn new(directory: &Path, saved: &Saved) -> Self {
        Self {
            directory: directory.display().to_string(),
            products: saved.products,
            references: saved.references,
            copied: saved.copied,
            bytes: saved.bytes,
            missing: saved.missing_count,
            missing_keys: saved.missing.clone(),
        }
    }
}

impl Row for SavedRow {
    const COLUMNS: &'static [&'static str] =
        &["directory", "products", "references to blobs", "blobs copied", "bytes", "missing"];
    const FIELDS: &'static [&'static str] = &["directory", "products", "references", "copied", "bytes", "missing"];

    fn id(&self) -> String {
        self.directory.clone()
    }

    fn cells(&self) -> Vec<String> {
        let counts = [self.products, self.references, self.copied, self.bytes, self.missing];
        [self.directory.clone()].into_iter().chain(counts.map(|count| count.to_string())).collect()
    }

    fn fields(&self) -> Vec<String> {
        self.cells()
    }
}

struct RestoredRow(Restored);

impl Serialize for RestoredRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Restored { rows, products, references, missing } = self.0;
        let named = [("products", products), ("rows", rows), ("references", references), ("missing", missing)];
        serializer.collect_map(named)
    }
}

impl Row for RestoredRow {
    const COLUMNS: &'static [&'static str] = &["products", "rows", "references to blobs", "missing"];
    const FIELDS: &'static [&'static str] = &["products", "rows", "references", "missing"];

    fn id(&self) -> String {
        self.0.products.to_string()
    }

    fn cells(&self) -> Vec<String> {
        [self.0.products, self.0.rows, self.0.references, self.0.missing].map(|count| count.to_string()).into()
    }

    fn fields(&self) -> Vec<String> {
        self.cells()
    }
}
