//! Whose a product is: asked before anything of it is changed by somebody who has to prove who they are.

use crate::{
    catalog::{Catalog, Error},
    db::products::owner,
    domain::{ProductId, UserId},
};

impl Catalog {
    /// The owner of the product; `None` if there is no such product. One look-up by its number.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn owner_of(&self, id: ProductId) -> Result<Option<UserId>, Error> {
        Ok(owner::find(&self.database().read(), id).await?)
    }
}
