//! Makes a backup: all tables of one snapshot, then the referenced blobs, then the manifest.

use std::path::Path;

use super::{
    Error, FORMAT, PAGE,
    copies::Copies,
    files::{self, RowWriter},
    manifest::{BlobCounts, Directory, Manifest, TableFile},
    previous,
    report::{Options, Saved},
    secrets::{Protection, Secrets},
};
use crate::{
    catalog::Catalog,
    clock::Timestamp,
    db::maintenance::transfer,
    maintenance::progress::{Step, Watch},
    private_files,
};

impl Catalog {
    /// Copies a snapshot of the catalog to `directory` while the system is running.
    ///
    /// Existing copies of blobs are reused, verified from time to time, and repaired from the store. The previous
    /// backup stays valid until this one is complete. No blob is deleted meanwhile. Missing blobs are not an error; the
    /// result lists them.
    ///
    /// # Errors
    /// [`Error::Refused`] if the directory contains other files the backup of another installation, or
    /// one that another passphrase encrypts.
    pub async fn backup(&self, directory: &Path, options: Options, watch: &mut Watch<'_>) -> Result<Saved, Error> {
        let directory = Directory::new(directory);
        let _lock = directory.take().await?;
        if !options.replace {
            previous::ensure_own(&directory, &self.installation()).await?;
            if let Protection::Encrypted { passphrase, .. } = &options.protection {
                previous::ensure_same_passphrase(&directory, passphrase).await?;
            }
        }
        // Read before the snapshot, so that no blob that the snapshot refers to is deleted.
        let hold = self.database().hold_blobs().await?;
        let mut saved = Saved::default();
        let lost = previous::inspect(&directory, &mut saved.mended, watch).await?;
        let now = Timestamp::now();
        let folder = Directory::new_folder(now.0);
        let path = directory.folder(&folder);
        let made = path.clone();
        files::blocking(move || private_files::create_dir_all(&made)).await.map_err(Error::of(&path))?;
        let mut secrets = Secrets::default();
        let tables = self.save_tables(&directory, &folder, &mut secrets, watch).await?;
        secrets.open_webhooks(self.secret_keys());
        saved.products = tables.iter().find(|table| table.name == "products").map_or(0, |table| table.rows);
        let secrets_sha256 = save_secrets(&directory, &folder, secrets, options.protection).await?;
        saved.has_secrets = secrets_sha256.is_some();
        let copies = Copies::new(self.blobs(), &directory, options.verify, &lost).await?;
        copies.save(&folder, &tables, &mut saved, watch).await?;
        let manifest = Manifest {
            format: FORMAT,
            pm: env!("CARGO_PKG_VERSION").into(),
            installation: Some(self.installation()),
            created_at: now.to_string(),
            engine: self.database().name().into(),
            schema: transfer::schema(self.database()).await?,
            folder,
            tables,
            blobs: BlobCounts { references: saved.references, missing: saved.missing_references },
            secrets_sha256,
            checksum: String::new(),
        };
        directory.finish(&manifest).await?;
        // If the release fails, the end of the connection releases the lock.
        let _ = hold.release().await;
        Ok(saved)
    }

    async fn save_tables(
        &self,
        directory: &Directory,
        folder: &str,
        secrets: &mut Secrets,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<TableFile>, Error> {
        let snapshot = self.database().snapshot().await?;
        // The connection may be idle for long while a file is synced.
        snapshot.stay_idle().await?;
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
                let mut rows = table.page(&snapshot, after.as_ref(), PAGE as u64).await?;
                let Some(last) = rows.last() else { break };
                after = last.get("id").cloned();
                rows.iter_mut().for_each(|row| secrets.take(table.name, row));
                file.write(&rows).await?;
                done += rows.len() as u64;
                watch(Step { name: "copying rows", done, total });
            }
            let (rows, sha256) = file.finish().await?;
            // Read after the rows, so that it is not lower than their ids: ids are assigned outside of transactions.
            let last_number = table.last_number(&self.database().read()).await?;
            saved.push(TableFile { name: table.name.into(), rows, sha256, last_number });
        }
        Ok(saved)
    }
}

/// Writes the encrypted secrets; returns the SHA-256 of the file, or `None` if they are left out.
async fn save_secrets(
    directory: &Directory,
    folder: &str,
    mut secrets: Secrets,
    protection: Protection,
) -> Result<Option<String>, Error> {
    let Protection::Encrypted { passphrase, url_keys } = protection else { return Ok(None) };
    secrets.url_keys = url_keys;
    let file = secrets.encrypted(passphrase).await?;
    let path = directory.secrets(folder);
    let to = path.clone();
    files::blocking(move || files::write_durably(&to, &file)).await.map_err(Error::of(&path))?;
    files::hash(&path).await
}
