//! Removing products with everything that belongs to them, without getting into the way of those who work on it.

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::{LockBehavior, LockType, Query},
};

use crate::{
    db::{
        Error,
        entity::{
            image,
            job::{Column, Entity},
            product,
        },
    },
    domain::{JobState, ProductId},
};

/// Holds the jobs of these products that wait or run until the transaction ends. SQLite has one writer anyway.
///
/// # Errors
/// If the database does not answer.
pub async fn hold_live_jobs(connection: &impl ConnectionTrait, products: &[ProductId]) -> Result<(), Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let _: Vec<i64> = live_jobs(products).lock_exclusive().into_tuple().all(connection).await?;
    }
    Ok(())
}

/// Whether no other transaction holds a job of these products that waits or runs; does not wait for any.
///
/// # Errors
/// If the database does not answer.
pub async fn all_live_jobs_are_held(connection: &impl ConnectionTrait, products: &[ProductId]) -> Result<bool, Error> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let free: Vec<i64> = live_jobs(products)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
        .all(connection)
        .await?;
    let all: Vec<i64> = live_jobs(products).into_tuple().all(connection).await?;
    Ok(all.iter().all(|id| free.contains(id)))
}

/// Deletes products with their pictures, renditions and jobs; answers which of them there were.
///
/// # Errors
/// If the database does not answer.
pub async fn delete_products(connection: &impl ConnectionTrait, ids: &[ProductId]) -> Result<Vec<ProductId>, Error> {
    let deleted = product::Entity::delete_many()
        .filter(product::Column::Id.is_in(ids.iter().map(|id| id.0)))
        .exec_with_returning(connection)
        .await?;
    let mut deleted: Vec<_> = deleted.into_iter().map(|row| ProductId(row.id)).collect();
    deleted.sort_unstable();
    Ok(deleted)
}

fn live_jobs(products: &[ProductId]) -> Select<Entity> {
    let images = Query::select()
        .column(image::Column::Id)
        .from(image::Entity)
        .and_where(image::Column::ProductId.is_in(products.iter().map(|id| id.0)))
        .to_owned();
    Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::ImageId.in_subquery(images))
        .filter(Column::State.is_in([JobState::Queued.as_str(), JobState::Running.as_str()]))
        .order_by_asc(Column::Id)
}
