//! The keys that sign variant URLs.

use std::io;

use super::{App, Error};
use crate::{
    config::{DatabaseUrl, Settings},
    resize::UrlKeys,
    secret_file,
};

/// Name of the key file in the data directory.
const FILE: &str = "url.key";

/// Stores the keys from a backup, so that URLs signed earlier stay valid.
///
/// Returns a message if the operator must set `PM_URL_KEY`.
///
/// # Errors
/// If the file in the data directory cannot be written.
pub async fn restore(app: &App, keys: &str) -> Result<Option<String>, Error> {
    if app.url_keys.as_ref().is_some_and(|current| current.reveal() == keys) {
        return Ok(None);
    }
    UrlKeys::parse(keys).map_err(|message| {
        Error::Setting(format!("the backup's keys that sign variant URLs are invalid: it {message}"))
    })?;
    let settings = &app.settings;
    let path = settings.data_dir.join(FILE);
    let (to, text) = (path.clone(), keys.to_owned());
    let written = tokio::task::spawn_blocking(move || secret_file::replace(&to, &text)).await;
    let unusable = |source| Error::DataDirectory { path: path.clone(), source };
    written.map_err(io::Error::other).flatten().map_err(unusable)?;
    let is_used = settings.url_key.is_none() && matches!(settings.database, DatabaseUrl::Sqlite { .. });
    let by_hand = || {
        let path = path.display();
        format!("URLs that were signed before stay valid once PM_URL_KEY is set to the content of {path}")
    };
    Ok((!is_used).then(by_hand))
}

/// Returns the configured keys; on SQLite, by default the key in the data directory.
///
/// With `make`, creates the missing key file.
pub(super) async fn of(settings: &Settings, make: bool) -> Result<Option<UrlKeys>, Error> {
    if settings.url_key.is_some() || matches!(settings.database, DatabaseUrl::Postgres { .. }) {
        return Ok(settings.url_key.clone());
    }
    let path = settings.data_dir.join(FILE);
    let unusable = |source| Error::DataDirectory { path: path.clone(), source };
    let text = match tokio::fs::read_to_string(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = settings.data_dir.clone();
            let made = tokio::task::spawn_blocking(move || secret_file::make(&directory.join(FILE))).await;
            made.map_err(io::Error::other).flatten().map_err(unusable)?
        }
        read => read.map_err(unusable)?,
    };
    let keys = UrlKeys::parse(text.trim());
    keys.map(Some).map_err(|message| Error::Setting(format!("{} {message}", path.display())))
}
