//! Options and result of a backup.

use super::{Names, secrets::Protection};

/// Which existing copies of blobs are verified by their SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Copies that were changed, or not verified for 30 days.
    #[default]
    Due,
    /// All copies.
    All,
}

/// Options of a backup.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which existing copies are verified.
    pub verify: Verify,
    /// Whether a backup of another installation, or one with another passphrase, is replaced.
    pub replace: bool,
    /// Whether secrets are encrypted or left out.
    pub protection: Protection,
}

/// The result of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Number of products in the backup.
    pub products: u64,
    /// Number of references from rows to blobs.
    pub references: u64,
    /// Number of blobs copied now; the others were already in the directory.
    pub copied: u64,
    /// Total bytes of copied blobs.
    pub bytes: u64,
    /// Number of existing copies verified now.
    pub verified: u64,
    /// Damaged or missing files of the previous backup that were written again.
    pub mended: Names,
    /// Blobs that were missing or damaged in the store.
    pub missing: Names,
    /// Number of references to such blobs.
    pub missing_references: u64,
    /// Whether the backup contains secrets.
    pub has_secrets: bool,
}
