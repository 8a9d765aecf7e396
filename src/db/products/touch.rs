//! Updates the version and status of a product after any change.

use sea_orm::ConnectionTrait;

use crate::{
    clock::Timestamp,
    db::{Error, statement::query},
    domain::{ProductId, ProductStatus, UserId},
};

/// A product after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The product's id.
    pub id: ProductId,
    /// The product's owner.
    pub user_id: UserId,
    /// Its new version.
    pub version: i64,
    /// Its new status.
    pub status: ProductStatus,
}

/// Increments the version of products and derives their status from their images.
/// Returns the updated products, without those that do not exist. The caller must have locked the rows with
/// [`super::lock`].
pub async fn touch(
    connection: &impl ConnectionTrait,
    ids: &[ProductId],
    now: Timestamp,
) -> Result<Vec<Touched>, Error> {
    const TOUCH: &str = "UPDATE products SET version = version + 1, updated_at = $1, status = CASE
            WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND status IN ('pending', 'processing'))
                THEN 'processing'
            WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND status = 'failed') THEN 'failed'
            ELSE 'ready' END
        WHERE id = $2 RETURNING user_id, version, status";
    let mut touched = Vec::with_capacity(ids.len());
    for id in ids {
        for row in query(connection, TOUCH, vec![now.0.into(), id.0.into()]).await? {
            touched.push(Touched {
                id: *id,
                user_id: UserId::stored(row.try_get("", "user_id")?),
                version: row.try_get("", "version")?,
                status: status_of(*id, &row.try_get::<String>("", "status")?)?,
            });
        }
    }
    Ok(touched)
}

fn status_of(id: ProductId, stored: &str) -> Result<ProductStatus, Error> {
    ProductStatus::parse(stored).ok_or_else(|| Error::Corrupt(format!("product {id} has the status {stored}")))
}
