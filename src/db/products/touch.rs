//! What every change of a product does to its own row.

use sea_orm::ConnectionTrait;

use crate::{
    clock::Timestamp,
    db::{Error, statement::query},
    domain::{ProductId, ProductStatus, UserId},
};

/// A product after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The product.
    pub id: ProductId,
    /// Who owns it.
    pub user_id: UserId,
    /// Its version now.
    pub version: i64,
    /// Its status now.
    pub status: ProductStatus,
}

/// Counts a change that readers can see: the version grows by one and the status follows from the pictures again. Answers
/// what the products are now; those that are not there are left out. The rows must be held by [`super::lock`].
///
/// # Errors
/// If the database does not answer.
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
