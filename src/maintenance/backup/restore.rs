//! Restores a backup: blobs first, then all rows in one transaction.
//!
//! So the blobs of every visible row exist. Lost data is left out, and the catalog stays consistent.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::{
    Checked, Error, MAX_CONCURRENT_BLOBS, Seen,
    files::RowReader,
    references::{REFERRING, Reference, reference},
    salvage,
    secrets::Restoring,
};
use crate::{
    blobs::{BlobKey, Blobs, Marker, State},
    cache::Cache,
    catalog::Catalog,
    clock::Timestamp,
    db::{
        Write,
        connection::installation,
        maintenance::transfer::{self, Table},
        products::terms,
    },
    domain::InstallationId,
    maintenance::{
        losses::GiveUp,
        progress::{Step, Watch},
    },
};

/// The result of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Number of rows of all tables.
    pub rows: u64,
    /// Number of products.
    pub products: u64,
    /// Number of references to existing blobs.
    pub references: u64,
    /// Number of references to lost blobs.
    pub missing: u64,
    /// Number of images queued again because of lost blobs or rows.
    pub queued: u64,
    /// Number of images whose largest rendition replaced their lost uploaded file.
    pub replaced: u64,
    /// Number of images that failed because their uploaded file is lost.
    pub failed: u64,
    /// Number of lost rows.
    pub lost_rows: u64,
    /// Number of valid API keys that were not restored.
    pub keys_left_out: u64,
    /// Messages about work that pm or the operator completes later.
    pub notices: Vec<String>,
}

impl Restored {
    /// Whether everything was restored.
    pub const fn is_whole(&self) -> bool {
        self.missing == 0 && self.lost_rows == 0
    }
}

impl Catalog {
    /// Checks that the database is empty, and that the webhook secrets of `backup` can be encrypted.
    ///
    /// # Errors
    /// [`Error::Refused`] if a table has rows; [`crate::catalog::Error::NotConfigured`] if no encryption key is set.
    pub async fn ensure_restorable(&self, backup: &Checked) -> Result<(), Error> {
        if backup.has_webhooks() {
            self.ensure_secret_keys()?;
        }
        for table in transfer::tables() {
            let rows = table.count(&self.database().read()).await?;
            if rows > 0 {
                let reason = format!("the database is not empty: {} has {rows} rows", table.name);
                return Err(Error::refused(reason, "restore into a new database, or empty it with `pm migrate fresh`"));
            }
        }
        Ok(())
    }

    /// Restores the intact parts of a backup with all ids into this empty installation.
    ///
    /// Unfinished images continue afterwards. `restoring` decides which secrets are restored. After an error, no row is
    /// stored.
    ///
    /// # Errors
    /// As for [`ensure_restorable`](Self::ensure_restorable).
    pub async fn restore(
        &self,
        backup: &Checked,
        restoring: Restoring<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Restored, Error> {
        let hold = self.database().hold_blobs().await?;
        self.ensure_restorable(backup).await?;
        let mut restored = Restored::default();
        let lost = self.restore_blobs(backup, &mut restored, watch).await?;
        let write = self.database().begin().await?;
        let now = write.now().await?;
        self.restore_rows(&write, backup, restoring, &mut restored, watch).await?;
        terms::fill_all(&*write).await?;
        // A new installation id: caches, brokers and running processes must not mistake the data for the previous data.
        let id = installation::renew(&*write).await?;
        make_own(&write, now).await?;
        self.restore_consistency(&write, &lost, &mut restored, now).await?;
        self.announce(&write).await?;
        write.commit().await?;
        // If this fails, the next start writes the marker. The restore is already committed.
        if let Err(error) = self.mark_store(id).await {
            restored.notices.push(because("the blob store's marker is written at the next start", &error));
        }
        // In-process caches read the new rows as their log. A shared cache is invalidated now, or later by a sweeper.
        if matches!(self.cache(), Cache::Redis(_)) {
            match self.flush_older_than(Duration::ZERO).await {
                Ok(true) => {}
                Ok(false) => restored.notices.push("the cache does not answer; it is invalidated later".into()),
                Err(error) => restored.notices.push(because("the cache is invalidated later", &error.into())),
            }
        }
        self.queue().wake();
        // A release fails only if the connection broke, which releases the lock as well.
        let _ = hold.release().await;
        Ok(restored)
    }

    async fn restore_rows(
        &self,
        write: &Write,
        backup: &Checked,
        restoring: Restoring<'_>,
        restored: &mut Restored,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let now = write.now().await?;
        let total = backup.manifest.tables.iter().map(|table| table.rows).sum();
        for table in transfer::tables() {
            // A backup of an older version lacks newer tables.
            let Some(file) = backup.manifest.tables.iter().find(|file| file.name == table.name) else { continue };
            let path = backup.directory.table(&backup.manifest.folder, table.name);
            let mut rows = RowReader::open(path, backup.manifest.format).await?;
            let (mut stored, mut highest) = (0, 0);
            loop {
                let mut page = rows.page().await?;
                if page.is_empty() {
                    break;
                }
                if backup.damage().rows > 0 {
                    page = salvage::connected(write, table.name, page, now).await?;
                }
                for row in &mut page {
                    highest = highest.max(row.get("id").and_then(Value::as_i64).unwrap_or_default());
                    let is_kept = restoring.put_back(self.secret_keys(), table.name, row, now);
                    restored.keys_left_out += u64::from(!is_kept);
                }
                Table::insert(&table, &**write, &page).await?;
                stored += page.len() as u64;
                watch(Step { name: "restoring rows", done: restored.rows + stored, total });
            }
            table.number_after(&**write, file.last_number.unwrap_or(0).max(highest)).await?;
            if (rows.damaged > 0 || stored != file.rows) && backup.damage().rows == 0 {
                let reason = format!("{}.ndjson was changed or removed since the backup was checked", table.name);
                return Err(Error::Damaged(vec![reason]));
            }
            restored.rows += stored;
            restored.lost_rows += file.rows.saturating_sub(stored);
            if table.name == "products" {
                restored.products = stored;
            }
        }
        Ok(())
    }

    /// Writes the new installation id to the store's marker.
    async fn mark_store(&self, id: InstallationId) -> Result<(), Error> {
        let store = self.blobs();
        if let Some(marker) = store.marker().await? {
            store.mark(&Marker { installation: id, ..marker }).await?;
        }
        self.note_installation().await?;
        Ok(())
    }

    /// Copies all referenced blobs; returns those without an intact copy.
    async fn restore_blobs(
        &self,
        backup: &Checked,
        restored: &mut Restored,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<String>, Error> {
        let source = backup.directory.blobs().await?;
        let tables = backup.manifest.tables.iter().filter(|table| REFERRING.contains(&table.name.as_str()));
        let total = tables.clone().map(|table| table.rows).sum();
        let (mut done, mut seen, mut missing, mut lost) = (0, Seen::default(), Seen::default(), Vec::new());
        for table in tables {
            let path = backup.directory.table(&backup.manifest.folder, &table.name);
            let mut rows = RowReader::open(path, backup.manifest.format).await?;
            loop {
                let page = rows.page().await?;
                if page.is_empty() {
                    break;
                }
                let references: Vec<Reference> = page.iter().filter_map(reference).collect();
                let new: Vec<_> = references.iter().filter(|reference| seen.is_first(&reference.key)).collect();
                let copies = stream::iter(new).map(|reference| {
                    let (source, store) = (&source, self.blobs());
                    async move { Ok::<_, Error>((copy(source, store, &reference.key).await?, &reference.key)) }
                });
                let mut copies = copies.buffer_unordered(MAX_CONCURRENT_BLOBS);
                while let Some((is_there, key)) = copies.try_next().await? {
                    if !is_there {
                        missing.is_first(key);
                        lost.push(key.clone());
                    }
                }
                let lacking = references.iter().filter(|reference| missing.contains(&reference.key)).count() as u64;
                restored.missing += lacking;
                restored.references += references.len() as u64 - lacking;
                done += page.len() as u64;
                watch(Step { name: "restoring blobs", done, total });
            }
        }
        if restored.missing > backup.damage().missing {
            return Err(Error::Damaged(vec!["blobs were removed or damaged since the backup was checked".into()]));
        }
        Ok(lost)
    }

    /// Makes rows consistent with each other and with the existing blobs.
    async fn restore_consistency(
        &self,
        write: &Write,
        lost: &[String],
        restored: &mut Restored,
        now: Timestamp,
    ) -> Result<(), Error> {
        if lost.is_empty() && restored.lost_rows == 0 {
            return Ok(());
        }
        let mut losses = self.give_up(write, lost, GiveUp::Sources, now).await?;
        if restored.lost_rows > 0 {
            self.queue_unfinishable(write, &mut losses, now).await?;
        }
        self.follow_images(write, &losses, now).await?;
        restored.queued = losses.queued.len() as u64;
        restored.replaced = losses.replaced.len() as u64;
        restored.failed = losses.failed.len() as u64;
        Ok(())
    }
}

/// Returns a message with the causes of an error.
fn because(sentence: &str, error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    format!("{sentence}: {}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// Regenerates values that must differ from the backed-up installation, in the transaction of the rows.
async fn make_own(write: &Write, now: Timestamp) -> Result<(), Error> {
    Ok(transfer::take_over(&**write, now).await?)
}

/// Copies a blob to the store; returns `false` if neither the backup nor the store has it intact.
async fn copy(source: &Blobs, store: &Blobs, key: &str) -> Result<bool, Error> {
    let Some(key) = BlobKey::parse(key) else { return Ok(false) };
    Ok(matches!(source.copy_to(&key, store).await?, State::Whole { .. })
        || matches!(store.examine(&key).await?, State::Whole { .. }))
}
