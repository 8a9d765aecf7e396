//! Validates the content of a backup, which is untrusted input.
//!
//! An attacker may have changed its files and their checksums. Paths must stay inside the backup, numbers must be in
//! range, and there must be no links. An invalid backup is rejected before any of it is used.

use std::{fs, io, path::Path};

use serde_json::Value;

use super::FORMAT;
use crate::{
    blobs::BlobKey,
    db::maintenance::transfer::{Row, Table},
};

/// The highest id that a JSON number represents exactly.
pub(super) const MAX_NUMBER: i64 = 1 << 53;
/// Maximum length of a backup's text in messages.
pub(super) const MAX_TEXT: usize = 128;
/// Columns that refer to blobs.
const KEYS: [&str; 2] = ["blob_key", "source_key"];
/// Columns that cannot be negative.
const SIZES: [&str; 7] = ["bytes", "width", "height", "position", "attempt", "attempts", "generation"];
/// Columns that are only in the encrypted file of secrets, with their tables.
const SECRETS: [(&str, &str); 2] = [("webhooks", "secret"), ("api_keys", "hash")];

/// Checks that `root` contains only files and directories. A link could point outside of the backup.
///
/// # Errors
/// If a directory cannot be read. The inner error is a message that names the invalid entry.
pub(super) fn check_tree(root: &Path) -> io::Result<Result<(), String>> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = match entry.file_type() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                kind => kind?,
            };
            let path = entry.path();
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            if kind.is_symlink() {
                return Ok(Err(format!("{shown} is a symbolic link, which is not allowed in a backup")));
            }
            if kind.is_dir() {
                directories.push(path);
            } else if !kind.is_file() {
                return Ok(Err(format!("{shown} is neither a file nor a directory")));
            }
        }
    }
    Ok(Ok(()))
}

/// Validates a row of a backup of this format.
///
/// # Errors
/// A message that describes the first invalid value.
pub(super) fn check_row(table: &Table, row: &Row, format: u32) -> Result<(), String> {
    let id = row.get("id").cloned().unwrap_or_default();
    let named = |what: String| Err(format!("row {} of {} has {what}", shortened(&id.to_string()), table.name));
    if let Some(column) = table.first_misfit(row) {
        return named(format!("a {column} of the wrong type"));
    }
    if id.as_i64().is_some_and(|id| !(1..=MAX_NUMBER).contains(&id)) {
        return named("an invalid id".into());
    }
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    if let Some(key) = KEYS.iter().find_map(|name| text(name).filter(|key| BlobKey::parse(key).is_none())) {
        return named(format!("the invalid blob key {:?}", shortened(key)));
    }
    let size = |name: &&&str| row.get(**name).and_then(Value::as_i64).is_some_and(|size| size < 0);
    if let Some(name) = SIZES.iter().find(size) {
        return named(format!("a negative {name}"));
    }
    let is_secret = |(of, column): &&(&str, &str)| *of == table.name && row.contains_key(*column);
    match SECRETS.iter().find(is_secret) {
        Some((_, column)) if format == FORMAT => named(format!("a {column}, which only secrets.age may hold")),
        _ => Ok(()),
    }
}

/// Shortens a text of a backup for messages.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
