//! Detects that the database file or the blob store was replaced while the process runs.

use std::time::Duration;

use super::{App, Error, settle_identity, store};

/// Interval between checks of the blob store's marker.
const STORE_INTERVAL: Duration = Duration::from_secs(5);
/// Interval between checks of the database file.
const FILE_INTERVAL: Duration = Duration::from_secs(2);

impl App {
    /// Waits until the database file or the blob store no longer belongs to this installation.
    pub(super) async fn misplaced(&self) -> Error {
        tokio::select! {
            error = self.foreign_store() => error,
            error = self.replaced_database() => error,
        }
    }

    /// Waits until another file replaces the database file.
    ///
    /// Writes already detect this and fail. The process must end as well, because its cache and its reads still use the
    /// old file.
    async fn replaced_database(&self) -> Error {
        loop {
            tokio::time::sleep(FILE_INTERVAL).await;
            // An error proves nothing.
            if let Ok(Some(path)) = self.database.replaced_file().await {
                return Error::ReplacedDatabase { path };
            }
        }
    }

    /// Checks the store and the database: a database restored from a dump is a different one.
    async fn ensure_own(&self) -> Result<(), Error> {
        settle_identity(&self.database, false).await?;
        store::ensure_own(&self.settings, &self.database, &self.blobs).await
    }

    /// Waits until the blob store belongs to another installation.
    ///
    /// This happens if the store was unavailable at the start, or if another installation took it later.
    async fn foreign_store(&self) -> Error {
        let mut compared = self.store_compared;
        while !compared {
            tokio::time::sleep(STORE_INTERVAL).await;
            match store::compare_store(&self.settings, &self.database, &self.blobs).await {
                Ok(()) => compared = true,
                Err(error) if error.is_transient() => {}
                Err(error) => return error,
            }
        }
        // Marker and row do not change atomically, so one mismatch may be temporary.
        let mut seen = false;
        loop {
            tokio::time::sleep(STORE_INTERVAL).await;
            match self.ensure_own().await {
                Err(error @ (Error::ForeignStore { .. } | Error::CopiedDatabase { .. })) if seen => return error,
                Err(Error::ForeignStore { .. } | Error::CopiedDatabase { .. }) => seen = true,
                // An error proves nothing, and the row is missing while the schema is recreated.
                Err(_) => {}
                Ok(()) => seen = false,
            }
        }
    }
}
