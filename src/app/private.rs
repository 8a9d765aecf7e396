//! Takes the rights of others from the files that pm keeps: from those of earlier versions, and of other umasks.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    blobs,
    config::{DatabaseUrl, Settings},
    private_files::{tighten, tighten_tree},
};

/// Restricts the data directory, the database's files and the blob store to their owner, and says so in one log line if
/// anything had to change. What cannot be changed is no reason not to start.
pub(super) async fn restrict(settings: &Settings, engine: &blobs::Engine) {
    let data_dir = settings.data_dir.clone();
    let database = match &settings.database {
        DatabaseUrl::Sqlite { path } => Some(path.clone()),
        DatabaseUrl::Postgres { .. } => None,
    };
    let store = match engine {
        blobs::Engine::Disk { directory } => Some(directory.clone()),
        blobs::Engine::S3 { .. } => None,
    };
    let work = move || restrict_all(&data_dir, database.as_deref(), store.as_deref());
    match tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten() {
        Ok(0) => {}
        Ok(changed) => tracing::warn!(
            changed,
            "others could use {changed} files and directories of pm; now only their owner can (0600, 0700)"
        ),
        Err(error) => tracing::warn!(%error, "others may be able to use files of pm: their modes cannot be changed"),
    }
}

fn restrict_all(data_dir: &Path, database: Option<&Path>, store: Option<&Path>) -> io::Result<u64> {
    let mut changed = tighten(data_dir)?;
    for key in ["url.key", "secret.key"] {
        changed += tighten(&data_dir.join(key))?;
    }
    if let Some(database) = database {
        for suffix in ["", "-wal", "-shm", ".lock"] {
            changed += tighten(&beside(database, suffix))?;
        }
        changed += tighten_tree(&beside(database, ".workers"))?;
    }
    Ok(changed + store.map_or(Ok(0), tighten_tree)?)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
