//! What is wrong with the backup that is in the directory already, before the next one takes its place: damage is named even
//! where the next backup mends it.

use std::collections::HashSet;

use super::{
    Error, Names, Seen, files,
    files::RowReader,
    manifest::Directory,
    references::{REFERRING, reference},
};
use crate::{
    blobs::BlobKey,
    domain::InstallationId,
    maintenance::progress::{Step, Watch},
};

/// Lost copies that are remembered; what is beyond counts as copied, not as mended.
const MAX_LOST: usize = 100_000;

/// Makes sure that the backup that is there, if there is one, was made of this installation.
///
/// # Errors
/// [`Error::Refused`] if it was made of another one; by the file that cannot be read.
pub(super) async fn ensure_own(directory: &Directory, installation: &InstallationId) -> Result<(), Error> {
    let manifest = match directory.manifest().await {
        Ok(found) => found.manifest,
        // It cannot be restored, so nothing is lost.
        Err(Error::Damaged(_)) => return Ok(()),
        // There is none, or one of a newer version, which can restore it.
        Err(Error::Refused { .. }) if !directory.has_manifest().await? => return Ok(()),
        Err(Error::Refused { reason, .. }) => {
            return Err(Error::refused(reason, "name another directory; --replace replaces that backup"));
        }
        Err(error) => return Err(error),
    };
    match manifest.installation {
        Some(other) if other != *installation => Err(Error::refused(
            format!("the directory holds the backup of installation {other} of {}", manifest.created_at),
            "name another directory; if that installation is gone, or was restored or moved here, --replace replaces its \
             backup",
        )),
        _ => Ok(()),
    }
}

/// Names the damaged files of the backup that is there, and returns the blobs that it should have and has not.
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
        // There is no backup yet, or one of another version, which this one replaces.
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
            watch(Step { name: "looking at the backup before", done, total: 0 });
        }
    }
    Ok(lost)
}
