//! Looking at a backup before anything of it is used: the version, every hash, every blob. It changes nothing.

use std::{collections::HashSet, path::Path};

use futures_util::TryStreamExt as _;

use super::{
    AT_ONCE, Error,
    files::{self, RowReader},
    manifest::{Directory, Manifest},
    save::{REFERRING, reference},
};
use crate::{
    blobs::{BlobKey, Blobs, State},
    catalog::step::{Step, Watch},
    db::{migrate, transfer},
};

/// A backup that is whole.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(super) directory: Directory,
    pub(super) manifest: Manifest,
}

impl Checked {
    /// When the copied moment was, RFC 3339.
    pub fn created_at(&self) -> &str {
        &self.manifest.created_at
    }

    /// Products in it.
    pub fn products(&self) -> u64 {
        self.manifest.tables.iter().find(|table| table.name == "products").map_or(0, |table| table.rows)
    }
}

/// Looks at the backup in `directory`: all of it is read.
///
/// # Errors
/// [`Error::Refused`] if there is none or this version cannot read it, [`Error::Damaged`] if it is not what its manifest says.
pub async fn check(directory: &Path, watch: &mut Watch<'_>) -> Result<Checked, Error> {
    let directory = Directory::new(directory);
    let manifest = directory.manifest().await?;
    let (steps, tables) = (migrate::known(), transfer::tables());
    let newer = manifest.schema.iter().find(|step| !steps.contains(step)).or_else(|| {
        let names = manifest.tables.iter().map(|table| &table.name);
        names.into_iter().find(|name| !tables.iter().any(|table| table.name == name.as_str()))
    });
    if let Some(newer) = newer {
        let reason = format!("the backup was made by pm {}, which has {newer} that this version lacks", manifest.pm);
        return Err(Error::refused(reason, "restore it with that version or a newer one"));
    }
    check_rows(&directory, &manifest, watch).await?;
    check_blobs(&directory, &manifest, watch).await?;
    Ok(Checked { directory, manifest })
}

async fn check_rows(directory: &Directory, manifest: &Manifest, watch: &mut Watch<'_>) -> Result<(), Error> {
    let total = manifest.tables.iter().map(|table| table.rows).sum();
    let mut done = 0;
    let tables = transfer::tables();
    for table in &manifest.tables {
        let path = directory.table(&manifest.folder, &table.name);
        if files::hash(&path).await?.as_ref() != Some(&table.sha256) {
            return Err(Error::Damaged(format!("{} is not what the manifest says", path.display())));
        }
        let mut rows = RowReader::open(path).await?;
        let known = tables.iter().find(|known| known.name == table.name);
        loop {
            let page = rows.page().await?;
            if page.is_empty() {
                break;
            }
            if let Some(unknown) = known.and_then(|known| page.iter().find_map(|row| known.first_unknown(row))) {
                let reason = format!("the backup has a column {unknown} of {} that this version lacks", table.name);
                return Err(Error::refused(reason, "restore it with the version of pm that made it, or a newer one"));
            }
            done += page.len() as u64;
            watch(Step { name: "checking rows", done, total });
        }
    }
    Ok(())
}

/// Each blob is read once, however many rows refer to it; what is damaged and not referred to does no harm.
async fn check_blobs(directory: &Directory, manifest: &Manifest, watch: &mut Watch<'_>) -> Result<(), Error> {
    let blobs = directory.blobs().await?;
    let looks = blobs.list().map_ok(|listed| {
        let blobs = &blobs;
        async move { Ok((blobs.examine(&listed.key).await?, listed.key)) }
    });
    let mut looks = std::pin::pin!(looks.try_buffer_unordered(AT_ONCE));
    let (mut damaged, mut done) = (HashSet::new(), 0);
    while let Some((state, key)) = looks.try_next().await? {
        if !matches!(state, State::Whole { .. }) {
            damaged.insert(key);
        }
        done += 1;
        watch(Step { name: "checking blobs", done, total: 0 });
    }
    let mut missing: (u64, Option<String>) = (0, None);
    for table in manifest.tables.iter().filter(|table| REFERRING.contains(&table.name.as_str())) {
        let mut rows = RowReader::open(directory.table(&manifest.folder, &table.name)).await?;
        loop {
            let page = rows.page().await?;
            if page.is_empty() {
                break;
            }
            for reference in page.iter().filter_map(reference) {
                if !is_there(&blobs, &damaged, &reference.key).await? {
                    missing = (missing.0 + 1, missing.1.or(Some(reference.key)));
                }
            }
        }
    }
    match missing {
        // The backup itself said that the store had lost some.
        (count, Some(key)) if count > manifest.blobs.missing => {
            Err(Error::Damaged(format!("{} references lead to no whole blob, such as {key}", count)))
        }
        _ => Ok(()),
    }
}

async fn is_there(blobs: &Blobs, damaged: &HashSet<BlobKey>, key: &str) -> Result<bool, Error> {
    Ok(match BlobKey::parse(key) {
        Some(key) => !damaged.contains(&key) && blobs.exists(&key).await?,
        None => false,
    })
}
