//! Which installation this is, followed while the program runs: `restore` and `migrate fresh` give a database a new id.

use crate::{
    catalog::{Catalog, Error},
    db::connection::installation,
    domain::InstallationId,
};

impl Catalog {
    /// The installation's id as it was last seen.
    pub fn installation(&self) -> InstallationId {
        self.0.engines.installation.borrow().clone()
    }

    /// Looks whether the database still holds the same installation, and tells the queue of another one.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn follow_installation(&self) -> Result<(), Error> {
        if let Some(found) = self.note_installation().await? {
            tracing::warn!(installation = %found, "the database holds another installation from now on: {found}");
        }
        Ok(())
    }

    /// As [`Catalog::follow_installation`], for a change that this process made itself. Returns another installation's id.
    pub(crate) async fn note_installation(&self) -> Result<Option<InstallationId>, Error> {
        let found = installation::read(&self.database().read()).await?.id;
        self.look_for_plain_originals().await?;
        let changed = self.0.engines.installation.send_if_modified(|known| {
            let changed = *known != found;
            known.clone_from(&found);
            changed
        });
        if changed {
            self.forget_originals();
        }
        Ok(changed.then_some(found))
    }
}
