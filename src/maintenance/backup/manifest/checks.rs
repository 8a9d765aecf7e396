//! Validates the content of a manifest: folder, table names and numbers.

use std::collections::BTreeSet;

use super::Manifest;
use crate::maintenance::backup::trust::{MAX_NUMBER, MAX_TEXT, shortened};

/// Maximum number of rows of a table.
const MAX_ROWS: u64 = 1_000_000_000_000;

/// Validates a manifest.
///
/// # Errors
/// A message that describes the first invalid value.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    let texts = [("pm", &manifest.pm), ("created_at", &manifest.created_at), ("engine", &manifest.engine)];
    let steps = manifest.schema.iter().map(|step| ("schema", step));
    if let Some((name, _)) = texts.into_iter().chain(steps).find(|(_, text)| !is_plain(text)) {
        return Err(format!("its `{name}` is not printable ASCII of at most {MAX_TEXT} characters"));
    }
    let number = manifest.folder.strip_prefix("tables-").unwrap_or_default();
    if number.is_empty() || number.len() > 20 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("its folder {:?} is not a valid folder name", shortened(&manifest.folder)));
    }
    let mut names = BTreeSet::new();
    for table in &manifest.tables {
        let name = &table.name;
        let is_name = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if !is_name {
            return Err(format!("{:?} is not a valid table name", shortened(name)));
        }
        if !names.insert(name) {
            return Err(format!("the table {name} is listed twice"));
        }
        if table.rows > MAX_ROWS {
            return Err(format!("the table {name} cannot have {} rows", table.rows));
        }
        if let Some(last) = table.last_number.filter(|last| !(0..=MAX_NUMBER).contains(last)) {
            return Err(format!("the last id of the table {name} cannot be {last}"));
        }
        if !is_sha256(&table.sha256) {
            return Err(format!("the SHA-256 of the table {name} is invalid"));
        }
    }
    if manifest.secrets_sha256.as_ref().is_some_and(|sha256| !is_sha256(sha256)) {
        return Err("the SHA-256 of its secrets is invalid".into());
    }
    let counts = [manifest.blobs.references, manifest.blobs.missing];
    match counts.into_iter().find(|count| *count > MAX_ROWS) {
        Some(count) => Err(format!("it cannot refer to {count} blobs")),
        None => Ok(()),
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
