//! A copy of the whole catalogue in a directory, made while everything is running, and its way back into an empty
//! installation on whatever engines.
//!
//! ```text
//! DIR/manifest.json            written last, in one step: without it there is no backup
//! DIR/tables-N/manifest.json   the same once more, for the case that the first one is damaged
//! DIR/tables-N/products.ndjson one row a line, columns by name, with a checksum; of the backup that the manifest tells of
//! DIR/tables-N/secrets.age     secrets of webhooks, hashes of API keys, keys of signed addresses, encrypted
//! DIR/blobs/ab/cd/….jpg        what rows refer to; kept from one backup to the next, proved and mended
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

/// The number of this shape of a backup; it grows when an older version could not read it.
const FORMAT: u32 = 2;
/// Backups of this shape have no checksums of rows and manifests, and their secrets stand in the tables. They are read still.
const PLAIN_FORMAT: u32 = 1;
/// Rows that are in memory at a time.
const PAGE: usize = 500;
/// Blobs that are copied at a time, each in memory.
const AT_ONCE: usize = 8;

/// Files or blobs that are named to people: how many there are, and the first of them.
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

/// Blobs that were met before, in 16 bytes each: many rows may refer to one.
#[derive(Debug, Default)]
struct Seen(HashSet<u128>);

impl Seen {
    /// Whether this is the first time that the blob is met.
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

/// Half of the blob's SHA-256, its extension, and whether it is an original.
fn number(key: &str) -> Option<u128> {
    let key = BlobKey::parse(key)?;
    let extension = key.extension().bytes().fold(0, |all, byte| all << 8 | u128::from(byte));
    let original = u128::from(key.is_original()) << 64;
    u128::from_str_radix(&key.sha256()[..32], 16).ok().map(|number| number ^ extension ^ original)
}

/// The blobs of the backup in `directory`, to mend the store from.
///
/// # Errors
/// [`Error::Refused`] if there is no backup, or one with links in it; by the component that does not answer.
pub async fn copies_in(directory: &Path) -> Result<Blobs, Error> {
    let found = manifest::Directory::new(directory);
    found.ensure_plain().await?;
    found.manifest().await?;
    found.blobs().await
}
