//! The manifest, which describes a backup.
//!
//! A directory is a backup once it has a manifest, so the manifest is written last and atomically. It contains a
//! checksum of itself. A copy next to the tables replaces it if it is damaged.

mod checks;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Error, FORMAT, PLAIN_FORMAT, files, trust};
use crate::{
    blobs::{self, BlobKey, Blobs},
    domain::InstallationId,
    private_files,
};

const MANIFEST: &str = "manifest.json";
const UNFINISHED: &str = "manifest.json.new";
const BLOBS: &str = "blobs";
const LOCK: &str = ".lock";
const TABLES: &str = "tables-";
const SECRETS: &str = "secrets.age";
/// Maximum size of a manifest. It lists about ten tables, so a larger file is not a manifest.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
const FORGED: &str = "nothing was changed; the backup was modified after it was made: use another one";
/// The text before the checksum, which is the last value of a manifest.
const CHECKSUM: &[u8] = b"\"checksum\": \"";
/// Number of hex digits of a SHA-256.
const CHECKSUM_DIGITS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    /// The version of `pm` that made it.
    pub pm: String,
    /// The id of the installation; absent in backups of earlier versions.
    #[serde(default)]
    pub installation: Option<InstallationId>,
    /// Time of the database snapshot, RFC 3339.
    pub created_at: String,
    /// The database engine: `sqlite` or `postgres`.
    pub engine: String,
    /// The migrations applied to its schema.
    pub schema: Vec<String>,
    /// The folder of its tables.
    pub folder: String,
    /// The tables in the order of restoring.
    pub tables: Vec<TableFile>,
    pub blobs: BlobCounts,
    /// SHA-256 of the encrypted secrets; `None` if they were left out.
    #[serde(default)]
    pub secrets_sha256: Option<String>,
    /// SHA-256 of the manifest, computed with zeros as this field's digits.
    #[serde(default)]
    pub checksum: String,
}

/// The manifest of a backup, and the damage of its file if the copy was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub manifest: Manifest,
    pub damage: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableFile {
    pub name: String,
    pub rows: u64,
    /// SHA-256 of the file in hex.
    pub sha256: String,
    /// The highest id ever assigned, for tables with numeric ids.
    pub last_number: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobCounts {
    /// Number of references from rows to blobs.
    pub references: u64,
    /// Number of references whose blob was missing or damaged in the store.
    pub missing: u64,
}

/// The field of a manifest that every version has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// A directory that contains or will contain a backup.
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

    /// Creates the directory if necessary, and locks it until the returned file is closed.
    pub(super) async fn take(&self) -> Result<File, Error> {
        let path = self.0.clone();
        let locked = files::blocking(move || {
            private_files::create_dir_all(&path)?;
            files::sync_directory(&path.canonicalize()?.join(".."))?;
            for entry in std::fs::read_dir(&path)? {
                let name = entry?.file_name();
                let name = name.to_string_lossy();
                if ![MANIFEST, UNFINISHED, BLOBS, LOCK].contains(&name.as_ref()) && !name.starts_with(TABLES) {
                    return Ok(Err(format!("{} contains a file of another kind: {name}", path.display())));
                }
            }
            if let Err(reason) = trust::check_tree(&path)? {
                return Ok(Err(format!("{}: {reason}", path.display())));
            }
            let file = private_files::options().create(true).truncate(false).write(true).open(path.join(LOCK))?;
            match file.try_lock() {
                Ok(()) => {
                    // Earlier versions, or another umask, may have left wider permissions.
                    private_files::tighten_tree(&path)?;
                    Ok(Ok(file))
                }
                Err(TryLockError::WouldBlock) => Ok(Err(format!("another backup into {} is running", path.display()))),
                Err(TryLockError::Error(error)) => Err(error),
            }
        });
        let locked = locked.await.map_err(Error::of(&self.0))?;
        locked.map_err(|reason| Error::refused(reason, "use a separate directory for backups of this catalog"))
    }

    /// Returns the path of a blob's copy.
    pub(super) fn blob(&self, key: &BlobKey) -> PathBuf {
        self.0.join(BLOBS).join(key.as_str())
    }

    /// Returns the path of the encrypted secrets.
    pub(super) fn secrets(&self, folder: &str) -> PathBuf {
        self.0.join(folder).join(SECRETS)
    }

    /// Returns a path relative to the backup's directory, for messages.
    pub(super) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.0).unwrap_or(path).display().to_string()
    }

    /// Checks that the directory contains only files and directories.
    ///
    /// # Errors
    /// [`Error::Refused`] names the first symbolic link or special file.
    pub(super) async fn ensure_plain(&self) -> Result<(), Error> {
        let root = self.0.clone();
        let checked = files::blocking(move || trust::check_tree(&root)).await.map_err(Error::of(&self.0))?;
        checked.map_err(|reason| Error::refused(format!("invalid backup: {reason}"), FORGED))
    }

    /// Reads the manifest, or its copy if the file is damaged or missing.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no finished backup, or one in an unknown format; [`Error::Damaged`] if both files
    /// are damaged.
    pub(super) async fn manifest(&self) -> Result<Found, Error> {
        let path = self.0.join(MANIFEST);
        let damage = match files::read_bounded(&path, MAX_MANIFEST_BYTES).await {
            Ok(text) => match read(&text) {
                Ok(manifest) => {
                    checks::check(&manifest).map_err(|reason| forged(&reason))?;
                    return Ok(Found { manifest, damage: None });
                }
                Err(Unreadable::Malformed(reason)) => return Err(forged(&reason)),
                Err(Unreadable::Version(format)) => {
                    let reason =
                        format!("the backup has format {format}; this version of pm reads formats 1 and {FORMAT}");
                    let hint = "restore it with the version of pm that made it, or a newer one";
                    return Err(Error::refused(reason, hint));
                }
                Err(Unreadable::Damaged) => format!("{MANIFEST} is damaged"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{MANIFEST} is missing"),
            Err(error) => return Err(Error::of(&path)(error)),
        };
        match self.copy_of_manifest().await? {
            Some(manifest) => Ok(Found { manifest, damage: Some(damage) }),
            None if damage.ends_with("missing") => {
                let reason = format!("no finished backup in {}", self.0.display());
                Err(Error::refused(reason, "run `pm backup DIR`; a backup without manifest.json was interrupted"))
            }
            None => Err(Error::Damaged(vec![damage])),
        }
    }

    /// Whether a manifest file exists.
    pub(super) async fn has_manifest(&self) -> Result<bool, Error> {
        let path = self.0.join(MANIFEST);
        tokio::fs::try_exists(&path).await.map_err(Error::of(&path))
    }

    /// Reads the newest intact copy of a manifest. A copy is written after all other files of its backup.
    async fn copy_of_manifest(&self) -> Result<Option<Manifest>, Error> {
        let directory = self.0.clone();
        let listed = files::blocking(move || {
            let mut folders = Vec::new();
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let moment = name.strip_prefix(TABLES).and_then(|moment| moment.parse::<i64>().ok());
                folders.extend(moment.map(|moment| (moment, entry.path())));
            }
            folders.sort();
            Ok(folders)
        });
        let folders = match listed.await {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::of(&self.0)(error)),
        };
        for (_, folder) in folders.into_iter().rev() {
            let path = folder.join(MANIFEST);
            match files::read_bounded(&path, MAX_MANIFEST_BYTES).await {
                Ok(text) => match read(&text) {
                    Ok(manifest) => {
                        checks::check(&manifest).map_err(|reason| forged(&reason))?;
                        return Ok(Some(manifest));
                    }
                    Err(_) => continue,
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::of(&path)(error)),
            }
        }
        Ok(None)
    }

    /// Writes the manifest and deletes the tables of the previous backup.
    pub(super) async fn finish(&self, manifest: &Manifest) -> Result<(), Error> {
        let text = sealed(manifest).map_err(|error| Error::of(&self.0)(error.into()))?;
        let (directory, folder) = (self.0.clone(), manifest.folder.clone());
        let finished = files::blocking(move || {
            files::write_durably(&directory.join(&folder).join(MANIFEST), &text)?;
            let unfinished = directory.join(UNFINISHED);
            files::write_durably(&unfinished, &text)?;
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

/// Why a manifest cannot be used.
enum Unreadable {
    Version(u32),
    Damaged,
    /// The checksum is right, but the content is invalid.
    Malformed(String),
}

fn forged(reason: &str) -> Error {
    Error::refused(format!("invalid {MANIFEST}: {reason}"), FORGED)
}

fn read(text: &[u8]) -> Result<Manifest, Unreadable> {
    let found = serde_json::from_slice::<Format>(text).map_err(|_| Unreadable::Damaged)?.format;
    let sum = checksum_at(text);
    match sum {
        Some(at) if text[at..at + CHECKSUM_DIGITS] != *checksum(text, at).as_bytes() => {
            return Err(Unreadable::Damaged);
        }
        None if found == FORMAT => return Err(Unreadable::Damaged),
        _ => {}
    }
    if ![PLAIN_FORMAT, FORMAT].contains(&found) {
        return Err(Unreadable::Version(found));
    }
    serde_json::from_slice(text).map_err(|error| match sum {
        Some(_) => Unreadable::Malformed(error.to_string()),
        None => Unreadable::Damaged,
    })
}

/// Serializes a manifest with its checksum.
fn sealed(manifest: &Manifest) -> serde_json::Result<Vec<u8>> {
    let unsealed = Manifest { checksum: "0".repeat(CHECKSUM_DIGITS), ..manifest.clone() };
    let mut text = serde_json::to_vec_pretty(&unsealed)?;
    if let Some(at) = checksum_at(&text) {
        let sum = checksum(&text, at);
        text[at..at + CHECKSUM_DIGITS].copy_from_slice(sum.as_bytes());
    }
    Ok(text)
}

/// Returns the offset of the checksum's digits.
fn checksum_at(text: &[u8]) -> Option<usize> {
    let at = text.windows(CHECKSUM.len()).rposition(|window| window == CHECKSUM)? + CHECKSUM.len();
    (at + CHECKSUM_DIGITS <= text.len()).then_some(at)
}

fn checksum(text: &[u8], at: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(&text[..at]);
    hash.update([b'0'; CHECKSUM_DIGITS]);
    hash.update(&text[at + CHECKSUM_DIGITS..]);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_of_a_manifest_is_detected() {
        let manifest = Manifest {
            format: FORMAT,
            pm: "0.1.0".into(),
            installation: None,
            created_at: "2026-01-31T12:00:00Z".into(),
            engine: "sqlite".into(),
            schema: vec!["m0001_users".into()],
            folder: "tables-1".into(),
            tables: vec![TableFile { name: "users".into(), rows: 1, sha256: "ab".into(), last_number: None }],
            blobs: BlobCounts::default(),
            secrets_sha256: None,
            checksum: String::new(),
        };
        let text = sealed(&manifest).expect("written");
        assert!(read(&text).is_ok());
        for place in 0..text.len() {
            let mut changed = text.clone();
            changed[place] ^= 1;
            assert!(matches!(read(&changed), Err(Unreadable::Damaged)), "byte {place}");
            assert!(matches!(read(&text[..place]), Err(Unreadable::Damaged)), "the first {place} bytes");
        }
    }
}
