//! Checks the previous backup in the directory before the next one replaces it.
//!
//! Damage is reported even if the next backup repairs it.

use std::collections::HashSet;

use super::{
    Error, Names, Seen,
    check::MAX_SECRETS_BYTES,
    files,
    files::RowReader,
    manifest::Directory,
    references::{REFERRING, reference},
};
use crate::{
    blobs::BlobKey,
    domain::InstallationId,
    maintenance::progress::{Step, Watch},
    passphrase::{self, Passphrase},
};

/// Maximum number of recorded missing copies; further ones count as copied, not as repaired.
const MAX_LOST: usize = 100_000;

/// Checks that an existing backup belongs to this installation.
///
/// # Errors
/// [`Error::Refused`] if it belongs to another one.
pub(super) async fn ensure_own(directory: &Directory, installation: &InstallationId) -> Result<(), Error> {
    let manifest = match directory.manifest().await {
        Ok(found) => found.manifest,
        // A damaged backup cannot be restored, so replacing it loses nothing.
        Err(Error::Damaged(_)) => return Ok(()),
        // There is no backup.
        Err(Error::Refused { .. }) if !directory.has_manifest().await? => return Ok(()),
        Err(Error::Refused { reason, .. }) => {
            return Err(Error::refused(reason, "use another directory, or replace that backup with --replace"));
        }
        Err(error) => return Err(error),
    };
    match manifest.installation {
        Some(other) if other != *installation => Err(Error::refused(
            format!("the directory contains a backup of installation {other} from {}", manifest.created_at),
            "use another directory; if that installation is gone, or was restored or moved here, use --replace",
        )),
        _ => Ok(()),
    }
}

/// Checks that `passphrase` decrypts the secrets of an existing backup.
///
/// Secrets that are damaged, or were left out, decide nothing.
///
/// # Errors
/// [`Error::Refused`] if another passphrase encrypted them.
pub(super) async fn ensure_same_passphrase(directory: &Directory, passphrase: &Passphrase) -> Result<(), Error> {
    let Ok(found) = directory.manifest().await else { return Ok(()) };
    let Some(sha256) = &found.manifest.secrets_sha256 else { return Ok(()) };
    let path = directory.secrets(&found.manifest.folder);
    // A damaged file may look like one that another passphrase encrypts. It is replaced.
    if files::hash(&path).await?.as_ref() != Some(sha256) {
        return Ok(());
    }
    let Ok(file) = files::read_bounded(&path, MAX_SECRETS_BYTES).await else { return Ok(()) };
    let passphrase = passphrase.clone();
    let work = tokio::task::spawn_blocking(move || passphrase.decrypt(&file).map(|_| ()));
    match work.await.map_err(crate::catalog::Error::internal)? {
        Err(passphrase::Error::WrongPassphrase) => Err(Error::refused(
            format!("another passphrase encrypts the secrets of the backup from {}", found.manifest.created_at),
            "pass that passphrase or use another directory; --replace replaces that backup and its passphrase",
        )),
        _ => Ok(()),
    }
}

/// Lists the damaged files of the existing backup; returns its missing blobs.
pub(super) async fn inspect(
    directory: &Directory,
    damaged: &mut Names,
    watch: &mut Watch<'_>,
) -> Result<HashSet<String>, Error> {
    let mut lost = HashSet::new();
    let found = match directory.manifest().await {
        Ok(found) => found,
        Err(Error::Damaged(files)) => {
            files.into_iter().for_each(|file| damaged.add(file));
            return Ok(lost);
        }
        // There is no backup yet, or one of another version, which will be replaced.
        Err(Error::Refused { .. }) => return Ok(lost),
        Err(error) => return Err(error),
    };
    if let Some(file) = found.damage {
        damaged.add(file);
    }
    let manifest = found.manifest;
    for table in &manifest.tables {
        let path = directory.table(&manifest.folder, &table.name);
        if files::hash(&path).await?.as_ref() != Some(&table.sha256) {
            damaged.add(format!("{} is damaged", directory.relative(&path)));
        }
    }
    if let Some(sha256) = &manifest.secrets_sha256 {
        let path = directory.secrets(&manifest.folder);
        if files::hash(&path).await?.as_ref() != Some(sha256) {
            damaged.add(format!("{} is damaged", directory.relative(&path)));
        }
    }
    let (blobs, mut seen, mut done) = (directory.blobs().await?, Seen::default(), 0);
    for table in manifest.tables.iter().filter(|table| REFERRING.contains(&table.name.as_str())) {
        let mut rows = RowReader::open(directory.table(&manifest.folder, &table.name), manifest.format).await?;
        loop {
            let page = rows.page().await?;
            if page.is_empty() {
                break;
            }
            for reference in page.iter().filter_map(reference).filter(|reference| seen.is_first(&reference.key)) {
                let Some(key) = BlobKey::parse(&reference.key) else { continue };
                if lost.len() < MAX_LOST && !blobs.exists(&key).await? {
                    lost.insert(reference.key);
                }
            }
            done += page.len() as u64;
            watch(Step { name: "checking the previous backup", done, total: 0 });
        }
    }
    Ok(lost)
}
