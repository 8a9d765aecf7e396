//! What a backup consists of. The manifest is what makes a directory a backup, so it comes last and in one step.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, files};
use crate::blobs::{self, Blobs};

/// The number of this shape of a backup; it grows when an older version could not read it.
pub(super) const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const UNFINISHED: &str = "manifest.json.new";
const BLOBS: &str = "blobs";
const LOCK: &str = ".lock";
const TABLES: &str = "tables-";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    /// The version of `pm` that made it.
    pub pm: String,
    /// When the copied moment was, RFC 3339.
    pub created_at: String,
    /// The database that it was made of: `sqlite` or `postgres`.
    pub engine: String,
    /// The steps that its schema had.
    pub schema: Vec<String>,
    /// The folder of its tables.
    pub folder: String,
    /// What is restored in this order.
    pub tables: Vec<TableFile>,
    pub blobs: BlobCounts,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableFile {
    pub name: String,
    pub rows: u64,
    /// SHA-256 of the file in hex.
    pub sha256: String,
    /// The highest number that was ever given to a row, where rows are numbered.
    pub last_number: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobCounts {
    /// References of rows to blobs, each counted.
    pub references: u64,
    /// Those whose blob the store did not have, or not undamaged.
    pub missing: u64,
}

/// The part of a manifest that every version has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// A directory with a backup, or for one.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn table(&self, folder: &str, table: &str) -> PathBuf {
        self.0.join(folder).join(format!("{table}.ndjson"))
    }

    pub(super) fn folder(&self, folder: &str) -> PathBuf {
        self.0.join(folder)
    }

    pub(super) fn new_folder(moment: i64) -> String {
        format!("{TABLES}{moment}")
    }

    pub(super) async fn blobs(&self) -> Result<Blobs, Error> {
        Ok(Blobs::connect(&blobs::Engine::Disk { directory: self.0.join(BLOBS) }).await?)
    }

    /// Makes the directory if need be, and keeps other backups out of it until the answer is dropped.
    pub(super) async fn take(&self) -> Result<File, Error> {
        let path = self.0.clone();
        let taken = files::blocking(move || {
            std::fs::create_dir_all(&path)?;
            files::sync_directory(&path.canonicalize()?.join(".."))?;
            for entry in std::fs::read_dir(&path)? {
                let name = entry?.file_name();
                let name = name.to_string_lossy();
                if ![MANIFEST, UNFINISHED, BLOBS, LOCK].contains(&name.as_ref()) && !name.starts_with(TABLES) {
                    return Ok(Err(format!("{} holds something else than a backup: {name}", path.display())));
                }
            }
            let file = File::options().create(true).truncate(false).write(true).open(path.join(LOCK))?;
            match file.try_lock() {
                Ok(()) => Ok(Ok(file)),
                Err(TryLockError::WouldBlock) => Ok(Err(format!("another backup into {} is running", path.display()))),
                Err(TryLockError::Error(error)) => Err(error),
            }
        });
        let taken = taken.await.map_err(Error::of(&self.0))?;
        taken.map_err(|reason| Error::refused(reason, "name a directory of its own for backups of this catalogue"))
    }

    /// The manifest, if this version can read it.
    pub(super) async fn manifest(&self) -> Result<Manifest, Error> {
        let path = self.0.join(MANIFEST);
        let text = match tokio::fs::read(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reason = format!("there is no finished backup in {}", self.0.display());
                return Err(Error::refused(reason, "`pm backup DIR` makes one; without manifest.json it was cut off"));
            }
            Err(error) => return Err(Error::of(&path)(error)),
        };
        let unreadable =
            |error: serde_json::Error| Error::Damaged(format!("{} cannot be read: {error}", path.display()));
        let found = serde_json::from_slice::<Format>(&text).map_err(unreadable)?.format;
        if found != FORMAT {
            let reason = format!("the backup has format {found}; this version of pm reads format {FORMAT}");
            return Err(Error::refused(reason, "restore it with the version of pm that made it, or a newer one"));
        }
        serde_json::from_slice(&text).map_err(unreadable)
    }

    /// Makes what was copied the backup; the one before it goes.
    pub(super) async fn finish(&self, manifest: &Manifest) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(manifest).map_err(|error| Error::of(&self.0)(error.into()))?;
        let (directory, folder) = (self.0.clone(), manifest.folder.clone());
        let finished = files::blocking(move || {
            let unfinished = directory.join(UNFINISHED);
            std::fs::write(&unfinished, text)?;
            File::open(&unfinished)?.sync_all()?;
            files::sync_directory(&directory.join(&folder))?;
            std::fs::rename(&unfinished, directory.join(MANIFEST))?;
            files::sync_directory(&directory)?;
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_string_lossy().starts_with(TABLES) && name.to_str() != Some(&folder) {
                    std::fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        });
        finished.await.map_err(Error::of(&self.0))
    }
}
