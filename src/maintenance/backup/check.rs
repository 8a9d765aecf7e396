//! Checks a backup before a restore: version, hashes and blobs. Changes nothing.

use std::{collections::HashSet, path::Path};

use futures_util::TryStreamExt as _;

use super::{
    Error, MAX_CONCURRENT_BLOBS, Names, PLAIN_FORMAT, Seen,
    files::{self, RowReader},
    manifest::{Directory, Manifest},
    references::{REFERRING, reference},
    secrets::Secrets,
    trust,
};
use crate::{
    blobs::{BlobKey, State},
    db::{maintenance::transfer, migrate},
    maintenance::progress::{Step, Watch},
    passphrase::Passphrase,
};

/// Maximum size of the secrets file, enough for a million API keys.
pub(super) const MAX_SECRETS_BYTES: u64 = 256 << 20;

/// A checked backup.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(super) directory: Directory,
    pub(super) manifest: Manifest,
    damage: Damage,
}

/// Damage of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// The damaged and missing files with descriptions.
    pub files: Names,
    /// Number of lost rows.
    pub rows: u64,
    /// Whether the secrets are lost.
    pub secrets: bool,
    /// Number of references to blobs that the backup lacks, including those that the installation lacked.
    pub(super) missing: u64,
}

impl Checked {
    /// Returns the time of the database snapshot, RFC 3339.
    pub fn created_at(&self) -> &str {
        &self.manifest.created_at
    }

    /// Returns the number of products.
    pub fn products(&self) -> u64 {
        self.manifest.tables.iter().find(|table| table.name == "products").map_or(0, |table| table.rows)
    }

    /// Whether it contains webhooks.
    pub(super) fn has_webhooks(&self) -> bool {
        self.manifest.tables.iter().any(|table| table.name == "webhooks" && table.rows > 0)
    }

    /// Returns the damage.
    pub const fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Whether it contains intact encrypted secrets.
    pub const fn has_encrypted_secrets(&self) -> bool {
        self.manifest.secrets_sha256.is_some() && !self.damage.secrets
    }

    /// Whether it contains no usable secrets.
    pub const fn lacks_secrets(&self) -> bool {
        self.manifest.format != PLAIN_FORMAT && !self.has_encrypted_secrets()
    }

    /// Decrypts its secrets.
    ///
    /// # Errors
    /// [`Error::Refused`] if the passphrase is wrong.
    pub async fn secrets(&self, passphrase: Passphrase) -> Result<Secrets, Error> {
        let path = self.directory.secrets(&self.manifest.folder);
        let file = files::read_bounded(&path, MAX_SECRETS_BYTES).await.map_err(Error::of(&path))?;
        Secrets::decrypted(file, passphrase).await
    }
}

/// Checks the backup in `directory`, reading all of it.
///
/// # Errors
/// [`Error::Refused`] if there is no backup or its format is unknown, [`Error::Damaged`] if it is unusable.
pub async fn check(directory: &Path, watch: &mut Watch<'_>) -> Result<Checked, Error> {
    let directory = Directory::new(directory);
    directory.ensure_plain().await?;
    let found = directory.manifest().await?;
    let (manifest, mut damage) = (found.manifest, Damage::default());
    if let Some(file) = found.damage {
        damage.files.add(file);
    }
    let (steps, tables) = (migrate::known(), transfer::tables());
    let newer = manifest.schema.iter().find(|step| !steps.contains(step)).or_else(|| {
        let names = manifest.tables.iter().map(|table| &table.name);
        names.into_iter().find(|name| !tables.iter().any(|table| table.name == name.as_str()))
    });
    if let Some(newer) = newer {
        let reason = format!("the backup was made by pm {} and contains {newer} that this version lacks", manifest.pm);
        return Err(Error::refused(reason, "restore it with that version or a newer one"));
    }
    check_rows(&directory, &manifest, &mut damage, watch).await?;
    if let Some(sha256) = &manifest.secrets_sha256 {
        let path = directory.secrets(&manifest.folder);
        if files::hash(&path).await?.as_ref() != Some(sha256) {
            damage.secrets = true;
            damage.files.add(format!("{} does not match the manifest", directory.relative(&path)));
        }
    }
    check_blobs(&directory, &manifest, &mut damage, watch).await?;
    Ok(Checked { directory, manifest, damage })
}

async fn check_rows(
    directory: &Directory,
    manifest: &Manifest,
    damage: &mut Damage,
    watch: &mut Watch<'_>,
) -> Result<(), Error> {
    let total = manifest.tables.iter().map(|table| table.rows).sum();
    let mut done = 0;
    let tables = transfer::tables();
    for table in &manifest.tables {
        let path = directory.table(&manifest.folder, &table.name);
        let is_whole = files::hash(&path).await?.as_ref() == Some(&table.sha256);
        let says = format!("{} does not match the manifest", directory.relative(&path));
        if !is_whole && manifest.format == PLAIN_FORMAT {
            let reason = "its rows have no checksums, so intact rows cannot be distinguished from damaged ones";
            return Err(Error::Damaged(vec![says, reason.into()]));
        }
        let mut rows = RowReader::open(path, manifest.format).await?;
        let known = tables.iter().find(|known| known.name == table.name);
        let mut whole = 0;
        loop {
            let page = rows.page().await?;
            if page.is_empty() {
                break;
            }
            if let Some(unknown) = known.and_then(|known| page.iter().find_map(|row| known.first_unknown(row))) {
                let reason = format!("the backup has a column {unknown} of {} that this version lacks", table.name);
                return Err(Error::refused(reason, "restore it with the version of pm that made it, or a newer one"));
            }
            let rows_checked = known
                .map_or(Ok(()), |known| page.iter().try_for_each(|row| trust::check_row(known, row, manifest.format)));
            rows_checked.map_err(|reason| {
                let hint = "nothing was changed; the backup was modified after it was made: use another one";
                Error::refused(format!("invalid backup: {reason}"), hint)
            })?;
            whole += page.len() as u64;
            done += page.len() as u64;
            watch(Step { name: "checking rows", done, total });
        }
        if !is_whole {
            let lost = table.rows.saturating_sub(whole);
            damage.rows += lost;
            damage.files.add(format!("{says}: {lost} of {} rows are lost", table.rows));
        }
    }
    Ok(())
}

/// Checks each blob once. Damaged blobs without references are ignored.
async fn check_blobs(
    directory: &Directory,
    manifest: &Manifest,
    damage: &mut Damage,
    watch: &mut Watch<'_>,
) -> Result<(), Error> {
    let blobs = directory.blobs().await?;
    let checks = blobs.list().map_ok(|listed| {
        let blobs = &blobs;
        async move { Ok((blobs.examine(&listed.key).await?, listed.key)) }
    });
    let mut checks = std::pin::pin!(checks.try_buffer_unordered(MAX_CONCURRENT_BLOBS));
    let (mut broken, mut whole, mut done) = (HashSet::new(), Seen::default(), 0);
    while let Some((state, key)) = checks.try_next().await? {
        if matches!(state, State::Whole { .. }) {
            whole.is_first(key.as_str());
        } else {
            broken.insert(key);
        }
        done += 1;
        watch(Step { name: "checking blobs", done, total: 0 });
    }
    let (mut lacking, mut named, mut names) = (0, Seen::default(), Names::default());
    for table in manifest.tables.iter().filter(|table| REFERRING.contains(&table.name.as_str())) {
        let mut rows = RowReader::open(directory.table(&manifest.folder, &table.name), manifest.format).await?;
        loop {
            let page = rows.page().await?;
            if page.is_empty() {
                break;
            }
            for reference in page.iter().filter_map(reference).filter(|reference| !whole.contains(&reference.key)) {
                lacking += 1;
                if named.is_first(&reference.key) {
                    let is_there = BlobKey::parse(&reference.key).is_some_and(|key| broken.contains(&key));
                    let word = if is_there { "damaged" } else { "missing" };
                    names.add(format!("blobs/{} is {word}", reference.key));
                }
            }
        }
    }
    damage.missing = lacking;
    // The manifest lists how many references the store could not satisfy at backup time.
    if lacking > manifest.blobs.missing {
        damage.files.count += names.count;
        damage.files.first.append(&mut names.first);
    }
    Ok(())
}
