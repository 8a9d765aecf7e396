//! How a backup is made, and what it came to.

use super::{Names, secrets::Protection};

/// Which copies of blobs that are in the directory already are read and compared with their SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Those that were changed, or not proved for 30 days.
    #[default]
    Due,
    /// All of them.
    All,
}

/// How a backup is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is read again.
    pub verify: Verify,
    /// Whether the backup of another installation is replaced.
    pub replace: bool,
    /// What is done with secrets.
    pub protection: Protection,
}

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Products in it.
    pub products: u64,
    /// References of rows to blobs.
    pub references: u64,
    /// Blobs that were copied now; the others were in the directory already.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were in the directory already and were proved now.
    pub verified: u64,
    /// Files of the backup before that were damaged or missing and were written again from the catalogue.
    pub mended: Names,
    /// Blobs that the store did not have, or not undamaged.
    pub missing: Names,
    /// References to such blobs.
    pub missing_references: u64,
    /// Whether secrets are in it.
    pub has_secrets: bool,
}
