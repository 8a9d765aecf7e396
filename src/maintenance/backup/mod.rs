//! Backup and restore.
//!
//! A backup copies the whole catalog to a directory while the system is running. A restore copies it into an empty
//! installation with any engines.
//!
//! ```text
//! DIR/manifest.json            written last and atomically: without it there is no backup
//! DIR/tables-N/manifest.json   a second copy, in case the first one is damaged
//! DIR/tables-N/products.ndjson one row per line, columns by name, with a checksum
//! DIR/tables-N/secrets.age     webhook secrets, API key hashes and keys that sign variant URLs, encrypted
//! DIR/blobs/ab/cd/….jpg        referenced blobs; reused by the next backup, verified and repaired
//! ```

mod check;
mod copies;
mod error;
mod files;
mod manifest;
mod previous;
mod references;
mod report;
mod restore;
mod salvage;
mod save;
mod secrets;
mod stamp;
mod trust;

pub use check::{Checked, Damage, check};
pub use error::Error;
pub use report::{Options, Saved, Verify};
pub use restore::Restored;
pub use secrets::{ApiKeys, Protection, Restoring, Secrets};

use std::{collections::HashSet, path::Path};

use crate::blobs::{BlobKey, Blobs};

/// The version of the backup format; it increases when older versions of pm cannot read the format.
const FORMAT: u32 = 2;
/// The first format, without checksums of rows and manifests and with secrets in the tables. It can still be restored.
const PLAIN_FORMAT: u32 = 1;
/// Rows in memory at a time.
const PAGE: usize = 500;
/// Blobs copied concurrently, each in memory.
const MAX_CONCURRENT_BLOBS: usize = 8;

/// Names of files or blobs for messages: the count and the first ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// How many there are.
    pub count: u64,
    /// The names of the first ones.
    pub first: Vec<String>,
}

impl Names {
    const MAX_NAMED: usize = 1_000;

    pub(super) fn add(&mut self, name: impl Into<String>) {
        self.count += 1;
        if self.first.len() < Self::MAX_NAMED {
            self.first.push(name.into());
        }
    }
}

/// A set of blobs, 16 bytes each.
#[derive(Debug, Default)]
struct Seen(HashSet<u128>);

impl Seen {
    /// Adds a blob; returns whether it was not in the set.
    fn is_first(&mut self, key: &str) -> bool {
        match number(key) {
            Some(number) => self.0.insert(number),
            None => true,
        }
    }

    fn contains(&self, key: &str) -> bool {
        number(key).is_some_and(|number| self.0.contains(&number))
    }
}

/// Returns a number made of half of the blob's SHA-256, its extension, and whether it is an original.
fn number(key: &str) -> Option<u128> {
    let key = BlobKey::parse(key)?;
    let extension = key.extension().bytes().fold(0, |all, byte| all << 8 | u128::from(byte));
    let original = u128::from(key.is_original()) << 64;
    u128::from_str_radix(&key.sha256()[..32], 16).ok().map(|number| number ^ extension ^ original)
}

/// Returns the blobs of the backup in `directory`, for repairs of the store.
///
/// # Errors
/// [`Error::Refused`] if there is no backup, or if it contains symbolic links.
pub async fn copies_in(directory: &Path) -> Result<Blobs, Error> {
    let found = manifest::Directory::new(directory);
    found.ensure_plain().await?;
    found.manifest().await?;
    found.blobs().await
}
