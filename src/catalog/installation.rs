//! Tracks the installation's id at run time; `restore` and `migrate fresh` change it.

use crate::{
    catalog::{Catalog, Error},
    db::connection::installation,
    domain::InstallationId,
};

impl Catalog {
    /// Returns the last known installation id.
    pub fn installation(&self) -> InstallationId {
        self.0.engines.installation.borrow().clone()
    }

    /// Reads the installation id from the database and notifies the queue if it changed.
    pub async fn follow_installation(&self) -> Result<(), Error> {
        if let Some(found) = self.note_installation().await? {
            tracing::warn!(installation = %found, "the installation id of the database changed to {found}");
        }
        Ok(())
    }

    /// Like [`Catalog::follow_installation`], for changes by this process. Returns the id if it changed.
    pub(crate) async fn note_installation(&self) -> Result<Option<InstallationId>, Error> {
        let found = installation::read(&self.database().read()).await?.id;
        self.look_for_plain_originals().await?;
        let changed = self.0.engines.installation.send_if_modified(|known| {
            let changed = *known != found;
            known.clone_from(&found);
            changed
        });
        if changed {
            self.clear_originals();
        }
        Ok(changed.then_some(found))
    }
}
