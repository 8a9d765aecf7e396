//! Making a backup: all tables as they are at one moment, then every blob that they refer to, then the manifest.

use std::path::Path;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::{
    AT_ONCE, Error, PAGE,
    files::{RowReader, RowWriter},
    manifest::{BlobCounts, Directory, FORMAT, Manifest, TableFile},
};
use crate::{
    blobs::{BlobKey, Blobs, State},
    catalog::{
        Catalog,
        step::{Step, Watch},
    },
    clock::Timestamp,
    db::transfer::{self, Row, Table},
};

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Products in it.
    pub products: u64,
    /// References of rows to blobs.
    pub references: u64,
    /// Blobs that were copied now; the others were in the directory already.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the store did not have, or not undamaged: the first hundred of them.
    pub missing: Vec<String>,
    /// References to such blobs.
    pub missing_count: u64,
}

/// A row's reference to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub key: String,
    /// Its bytes, where the row tells.
    pub bytes: Option<u64>,
}

/// The tables whose rows refer to blobs.
pub(super) const REFERRING: [&str; 3] = ["renditions", "variants", "images"];

/// The blob that a row of one of these tables refers to.
pub(super) fn reference(row: &Row) -> Option<Reference> {
    let text = |name| row.get(name).and_then(Value::as_str).map(str::to_owned);
    match text("blob_key") {
        Some(key) => Some(Reference { key, bytes: row.get("bytes").and_then(Value::as_u64) }),
        None => text("source_key").map(|key| Reference { key, bytes: None }),
    }
}

enum Copy {
    Kept,
    Copied(u64),
    Missing,
}

impl Catalog {
    /// Copies the catalogue as it is at one moment into `directory`, beside everything that is running. What a backup before
    /// has copied there is not copied again; that backup holds until this one is complete. Meanwhile no blob is removed.
    ///
    /// # Errors
    /// [`Error::Refused`] if the directory holds something else; by the component or the file that cannot be used. Blobs that
    /// are not there are none: the answer names them.
    pub async fn backup(&self, directory: &Path, watch: &mut Watch<'_>) -> Result<Saved, Error> {
        let directory = Directory::new(directory);
        let _taken = directory.take().await?;
        // Before the moment that is copied: what is referred to then is not removed any more.
        let hold = self.database().hold_blobs().await?;
        let now = Timestamp::now();
        let folder = Directory::new_folder(now.0);
        let path = directory.folder(&folder);
        tokio::fs::create_dir(&path).await.map_err(Error::of(&path))?;
        let tables = self.save_tables(&directory, &folder, watch).await?;
        let products = tables.iter().find(|table| table.name == "products").map_or(0, |table| table.rows);
        let mut saved = Saved { products, ..Saved::default() };
        self.save_blobs(&directory, &folder, &tables, &mut saved, watch).await?;
        let manifest = Manifest {
            format: FORMAT,
            pm: env!("CARGO_PKG_VERSION").into(),
            created_at: now.to_string(),
            engine: self.database().name().into(),
            schema: transfer::schema(self.database()).await?,
            folder,
            tables,
            blobs: BlobCounts { references: saved.references, missing: saved.missing_count },
        };
        directory.finish(&manifest).await?;
        // Whether it is released by hand or by its connection's end makes no difference to the backup.
        let _ = hold.release().await;
        Ok(saved)
    }

    async fn save_tables(
        &self,
        directory: &Directory,
        folder: &str,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<TableFile>, Error> {
        let snapshot = self.database().snapshot().await?;
        let tables = transfer::tables();
        let mut total = 0;
        for table in &tables {
            total += table.count(&snapshot).await?;
        }
        let (mut done, mut saved) = (0, Vec::new());
        for table in &tables {
            let mut file = RowWriter::create(directory.table(folder, table.name)).await?;
            let mut after = None;
            loop {
                let rows = table.page(&snapshot, after.as_ref(), PAGE as u64).await?;
                let Some(last) = rows.last() else { break };
                after = last.get("id").cloned();
                file.write(&rows).await?;
                done += rows.len() as u64;
                watch(Step { name: "copying rows", done, total });
            }
            let (rows, sha256) = file.finish().await?;
            // Read after the rows, so that it is not behind them: numbers are given outside of transactions.
            let last_number = table.last_number(&self.database().read()).await?;
            saved.push(TableFile { name: table.name.into(), rows, sha256, last_number });
        }
        Ok(saved)
    }

    async fn save_blobs(
        &self,
        directory: &Directory,
        folder: &str,
        tables: &[TableFile],
        saved: &mut Saved,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let target = directory.blobs().await?;
        let mut done = 0;
        let total =
            tables.iter().filter(|table| REFERRING.contains(&table.name.as_str())).map(|table| table.rows).sum();
        for table in transfer::tables().iter().filter(|table: &&Table| REFERRING.contains(&table.name)) {
            let mut rows = RowReader::open(directory.table(folder, table.name)).await?;
            loop {
                let page = rows.page().await?;
                if page.is_empty() {
                    break;
                }
                let references: Vec<_> = page.iter().filter_map(reference).collect();
                let copies = stream::iter(&references).map(|reference| {
                    let (store, target) = (&self.0.engines.blobs, &target);
                    async move { Ok::<_, Error>((reference, copy(store, target, reference).await?)) }
                });
                let mut copies = copies.buffer_unordered(AT_ONCE);
                while let Some((reference, copy)) = copies.try_next().await? {
                    saved.count(&reference.key, copy);
                }
                done += page.len() as u64;
                watch(Step { name: "copying blobs", done, total });
            }
        }
        Ok(())
    }
}

impl Saved {
    const MOST_NAMED: usize = 100;

    fn count(&mut self, key: &str, copy: Copy) {
        self.references += 1;
        match copy {
            Copy::Kept => {}
            Copy::Copied(bytes) => {
                self.copied += 1;
                self.bytes += bytes;
            }
            Copy::Missing => {
                self.missing_count += 1;
                if self.missing.len() < Self::MOST_NAMED && !self.missing.iter().any(|named| named == key) {
                    self.missing.push(key.to_owned());
                }
            }
        }
    }
}

async fn copy(store: &Blobs, target: &Blobs, reference: &Reference) -> Result<Copy, Error> {
    let Some(key) = BlobKey::parse(&reference.key) else { return Ok(Copy::Missing) };
    if let Some(found) = target.find(&key).await? {
        let wanted = match reference.bytes {
            Some(bytes) => Some(bytes),
            None => store.find(&key).await?.map(|stored| stored.size),
        };
        if wanted.is_none_or(|bytes| bytes == found.size) {
            return Ok(Copy::Kept);
        }
    }
    Ok(match store.copy_to(&key, target).await? {
        State::Whole { bytes } => Copy::Copied(bytes),
        State::Damaged | State::Missing => Copy::Missing,
    })
}
