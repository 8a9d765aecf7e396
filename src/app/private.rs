//! Restricts file permissions that earlier versions or a permissive umask left open.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    blobs,
    config::{DatabaseUrl, Settings},
    private_files::{tighten, tighten_tree},
};

/// Restricts the data directory, the database files and the blob store to their owner.
///
/// Logs one line if anything changed. A failure is logged and does not stop the start.
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
            "removed the access of other users from {changed} files and directories of pm (now 0600 and 0700)"
        ),
        Err(error) => tracing::warn!(%error, "cannot restrict the modes of pm's files; other users may have access"),
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
