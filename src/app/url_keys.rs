//! What addresses of pictures are signed with.

use std::io;

use super::Error;
use crate::{
    config::{DatabaseUrl, Settings},
    jobs::UrlKeys,
    secret_file,
};

/// The keys of the settings; on SQLite one that is kept in the data directory, where `make` makes it if it is missing.
pub(super) async fn of(settings: &Settings, make: bool) -> Result<Option<UrlKeys>, Error> {
    if settings.url_key.is_some() || matches!(settings.database, DatabaseUrl::Postgres { .. }) {
        return Ok(settings.url_key.clone());
    }
    let path = settings.data_dir.join("url.key");
    let unusable = |source| Error::DataDirectory { path: path.clone(), source };
    let text = match tokio::fs::read_to_string(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = settings.data_dir.clone();
            let made = tokio::task::spawn_blocking(move || secret_file::make(&directory.join("url.key"))).await;
            made.map_err(io::Error::other).flatten().map_err(unusable)?
        }
        read => read.map_err(unusable)?,
    };
    let keys = UrlKeys::parse(text.trim());
    keys.map(Some).map_err(|message| Error::Setting(format!("{} {message}", path.display())))
}
