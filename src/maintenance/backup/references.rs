//! References from rows of a backup to blobs.

use serde_json::Value;

use crate::db::{blobs::losses::LOST_SOURCE, maintenance::transfer::Row};

/// A row's reference to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub key: String,
    /// Size of the blob, if the row contains it.
    pub bytes: Option<u64>,
}

/// The tables whose rows refer to blobs.
pub(super) const REFERRING: [&str; 3] = ["renditions", "variants", "images"];

/// Returns the reference of a row to a blob, if any.
///
/// An image that failed because its uploaded file is lost has no reference.
pub(super) fn reference(row: &Row) -> Option<Reference> {
    let text = |name| row.get(name).and_then(Value::as_str);
    if let Some(key) = text("blob_key") {
        return Some(Reference { key: key.to_owned(), bytes: row.get("bytes").and_then(Value::as_u64) });
    }
    let is_lost = text("status") == Some("failed")
        && text("error_code").is_some_and(|code| LOST_SOURCE.iter().any(|lost| lost.as_str() == code));
    text("source_key").filter(|_| !is_lost).map(|key| Reference { key: key.to_owned(), bytes: None })
}
