//! Watches whether the database's file or the blob store is replaced while the process runs.

use std::time::Duration;

use super::{App, Error, settle_identity, store};

/// Between two looks at the blob store's marker.
const STORE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the database's file.
const FILE_INTERVAL: Duration = Duration::from_secs(2);

impl App {
    /// Waits until the database's file or the blob store is no longer this installation's.
    pub(super) async fn misplaced(&self) -> Error {
        tokio::select! {
            error = self.foreign_store() => error,
            error = self.replaced_database() => error,
        }
    }

    /// Waits until another file has taken the place of the database's. Each write makes sure of it by itself and is refused;
    /// the process ends, since its cache and its reads are still those of the file that is gone.
    async fn replaced_database(&self) -> Error {
        loop {
            tokio::time::sleep(FILE_INTERVAL).await;
            // Without an answer nothing is known.
            if let Ok(Some(path)) = self.database.replaced_file().await {
                return Error::ReplacedDatabase { path };
            }
        }
    }

    /// Checks the database as well: one that was made again from a dump is another database.
    async fn ensure_own(&self) -> Result<(), Error> {
        settle_identity(&self.database, false).await?;
        store::ensure_own(&self.settings, &self.database, &self.blobs).await
    }

    /// Waits until the blob store turns out to be another installation's: one that did not answer at the start, or one that
    /// was given away meanwhile.
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
        // The marker and the row are not changed at one moment: only what is seen twice is so.
        let mut seen = false;
        loop {
            tokio::time::sleep(STORE_INTERVAL).await;
            match self.ensure_own().await {
                Err(error @ (Error::ForeignStore { .. } | Error::CopiedDatabase { .. })) if seen => return error,
                Err(Error::ForeignStore { .. } | Error::CopiedDatabase { .. }) => seen = true,
                // Without an answer nothing is known, and while the schema is made again there is no row.
                Err(_) => {}
                Ok(()) => seen = false,
            }
        }
    }
}
