//! Restoring: blobs first, then all rows in one transaction; so whoever sees a row finds its blobs.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    AT_ONCE, Checked, Error,
    files::RowReader,
    save::{REFERRING, reference},
};
use crate::{
    blobs::{BlobKey, Blobs, State},
    cache::Cache,
    catalog::{
        Catalog,
        step::{Step, Watch},
    },
    db::{
        Write,
        transfer::{self, Table},
        words,
    },
};

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Rows of all tables.
    pub rows: u64,
    /// Products among them.
    pub products: u64,
    /// References of rows to blobs that are there.
    pub references: u64,
    /// References to blobs that were missing when the backup was made.
    pub missing: u64,
}

impl Catalog {
    /// Puts the backup into this installation, which must be empty, with all ids; then its pictures go on where they were.
    ///
    /// # Errors
    /// [`Error::Refused`] if there are rows already; by the component that does not answer: then no row was stored.
    pub async fn restore(&self, backup: &Checked, watch: &mut Watch<'_>) -> Result<Restored, Error> {
        let hold = self.database().hold_blobs().await?;
        for table in transfer::tables() {
            let rows = table.count(&self.database().read()).await?;
            if rows > 0 {
                let reason = format!("the database is not empty: {} has {rows} rows", table.name);
                return Err(Error::refused(reason, "restore into a new database, or empty it by `pm migrate fresh`"));
            }
        }
        let mut restored = Restored { products: backup.products(), ..Restored::default() };
        self.restore_blobs(backup, &mut restored, watch).await?;
        let write = self.database().begin().await?;
        restored.rows = restore_rows(&write, backup, watch).await?;
        words::fill_all(&*write).await?;
        transfer::take_over(&*write, write.now().await?).await?;
        self.announce(&write).await?;
        write.commit().await?;
        // Caches in processes read the rows that were just written as their log; a shared one is told now, and what it
        // cannot be told by now a sweeper will tell it.
        if matches!(self.cache(), Cache::Redis(_)) {
            let told = self.tell_left_over(Duration::ZERO).await;
            told.unwrap_or_else(|error| tracing::warn!(%error, "the cache is told of the restored products later"));
        }
        self.queue().wake();
        // Letting go fails only if the connection broke off, which lets go as well.
        let _ = hold.release().await;
        Ok(restored)
    }

    async fn restore_blobs(
        &self,
        backup: &Checked,
        restored: &mut Restored,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let source = backup.directory.blobs().await?;
        let tables = backup.manifest.tables.iter().filter(|table| REFERRING.contains(&table.name.as_str()));
        let total = tables.clone().map(|table| table.rows).sum();
        let mut done = 0;
        for table in tables {
            let mut rows = RowReader::open(backup.directory.table(&backup.manifest.folder, &table.name)).await?;
            loop {
                let page = rows.page().await?;
                if page.is_empty() {
                    break;
                }
                let copies = stream::iter(page.iter().filter_map(reference)).map(|reference| {
                    let (source, store) = (&source, &self.0.engines.blobs);
                    async move { copy(source, store, &reference.key).await }
                });
                let mut copies = copies.buffer_unordered(AT_ONCE);
                while let Some(is_there) = copies.try_next().await? {
                    restored.references += u64::from(is_there);
                    restored.missing += u64::from(!is_there);
                }
                done += page.len() as u64;
                watch(Step { name: "restoring blobs", done, total });
            }
        }
        Ok(())
    }
}

/// `false` if the backup does not have it whole, as it said.
async fn copy(source: &Blobs, store: &Blobs, key: &str) -> Result<bool, Error> {
    let Some(key) = BlobKey::parse(key) else { return Ok(false) };
    Ok(matches!(source.copy_to(&key, store).await?, State::Whole { .. }))
}

async fn restore_rows(write: &Write, backup: &Checked, watch: &mut Watch<'_>) -> Result<u64, Error> {
    let total = backup.manifest.tables.iter().map(|table| table.rows).sum();
    let mut done = 0;
    for table in transfer::tables() {
        // A backup of an older version lacks the tables that came later.
        let Some(file) = backup.manifest.tables.iter().find(|file| file.name == table.name) else { continue };
        let mut rows = RowReader::open(backup.directory.table(&backup.manifest.folder, table.name)).await?;
        loop {
            let page = rows.page().await?;
            if page.is_empty() {
                break;
            }
            Table::insert(&table, &**write, &page).await?;
            done += page.len() as u64;
            watch(Step { name: "restoring rows", done, total });
        }
        table.number_after(&**write, file.last_number.unwrap_or(0)).await?;
    }
    Ok(done)
}
