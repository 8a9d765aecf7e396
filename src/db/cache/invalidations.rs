//! The table of products whose cached entries are outdated.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::cache_invalidation::{ActiveModel, Column, Entity},
        lengths::{padded, parts},
    },
    domain::ProductId,
};

/// Version of the set of keys that a writer deletes from the shared cache.
/// If a row has no version, the database moves the cache to a new epoch (see the migration `m0016_installation`).
const CACHE_SCHEMA: i64 = 2;

/// A change that a shared cache may not have applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// The id of the row.
    pub id: i64,
    /// The changed product.
    pub product_id: ProductId,
}

/// Records that the transaction changes products.
/// `deletes_entries` says that the caller deletes their entries from the shared cache after the commit. Otherwise the
/// database moves the cache to a new epoch.
pub async fn record(
    connection: &impl ConnectionTrait,
    products: &[ProductId],
    deletes_entries: bool,
    now: Timestamp,
) -> Result<Vec<Invalidation>, Error> {
    let mut recorded = Vec::with_capacity(products.len());
    for some in parts(products) {
        let rows = some.iter().map(|product_id| ActiveModel {
            id: NotSet,
            product_id: Set(product_id.0),
            created_at: Set(now.0),
            cache_schema: Set(deletes_entries.then_some(CACHE_SCHEMA)),
        });
        let rows = Entity::insert_many(rows).exec_with_returning(connection).await?;
        recorded.extend(rows.iter().map(|row| Invalidation { id: row.id, product_id: ProductId(row.product_id) }));
    }
    Ok(recorded)
}

/// Returns changes from before `before` or after `after`, oldest first.
/// These should already be invalidated in the cache by their writers.
pub async fn overdue(
    connection: &impl ConnectionTrait,
    before: Timestamp,
    after: Option<Timestamp>,
    limit: u64,
) -> Result<Vec<Invalidation>, Error> {
    let future = after.map(|after| Column::CreatedAt.gt(after.0));
    let condition = Condition::any().add(Column::CreatedAt.lt(before.0)).add_option(future);
    let rows = Entity::find()
        .filter(condition)
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .limit(limit)
        .all(connection)
        .await?;
    Ok(rows.into_iter().map(|row| Invalidation { id: row.id, product_id: ProductId(row.product_id) }).collect())
}

/// Returns the products of up to `limit` changes of any age.
pub async fn products(connection: &impl ConnectionTrait, limit: u64) -> Result<Vec<ProductId>, Error> {
    let ids: Vec<i64> =
        Entity::find().select_only().column(Column::ProductId).limit(limit).into_tuple().all(connection).await?;
    Ok(ids.into_iter().map(ProductId).collect())
}

/// Deletes changes that the cache has applied.
pub async fn delete(connection: &impl ConnectionTrait, rows: &[Invalidation]) -> Result<(), Error> {
    Entity::delete_many().filter(Column::Id.is_in(padded(rows.iter().map(|row| row.id)))).exec(connection).await?;
    Ok(())
}
