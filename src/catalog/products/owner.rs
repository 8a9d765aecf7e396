//! Finds the owner of a product, for authorization.

use crate::{
    catalog::{Catalog, Error},
    db::products::owner,
    domain::{ProductId, UserId},
};

impl Catalog {
    /// Returns the owner of a product; `None` if the product does not exist.
    pub async fn owner_of(&self, id: ProductId) -> Result<Option<UserId>, Error> {
        Ok(owner::find(&self.database().read(), id).await?)
    }
}
