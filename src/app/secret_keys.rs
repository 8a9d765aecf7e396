//! The keys that encrypt webhook secrets in the database.

use std::io;

use super::Error;
use crate::{
    config::{DatabaseUrl, Settings},
    secret_file,
    secret_keys::SecretKeys,
};

/// Name of the key file in the data directory.
const FILE: &str = "secret.key";

/// Returns the configured keys, on SQLite followed by the keys in the data directory.
///
/// With `make`, creates the key file on SQLite if there is no other key.
///
/// # Errors
/// If the file cannot be read or created, or contains no key.
pub async fn secret_keys(settings: &Settings, make: bool) -> Result<Option<SecretKeys>, Error> {
    let set = settings.secret_key.clone();
    if matches!(settings.database, DatabaseUrl::Postgres { .. }) {
        return Ok(set);
    }
    let path = settings.data_dir.join(FILE);
    let unusable = |source| Error::DataDirectory { path: path.clone(), source };
    let text = match tokio::fs::read_to_string(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound && (set.is_some() || !make) => return Ok(set),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = path.clone();
            let made = tokio::task::spawn_blocking(move || secret_file::make(&file)).await;
            made.map_err(io::Error::other).flatten().map_err(unusable)?
        }
        read => read.map_err(unusable)?,
    };
    let kept = SecretKeys::parse(text.trim());
    let kept = kept.map_err(|message| Error::Setting(format!("{} {message}", path.display())))?;
    Ok(Some(match set {
        Some(set) => set.then(kept),
        None => kept,
    }))
}
