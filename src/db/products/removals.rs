//! Deletes products and images with their dependent rows, without blocking the workers.

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::{LockBehavior, LockType, Query},
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::{
            image,
            job::{ActiveModel, Column, Entity},
            product,
        },
        lengths::padded,
    },
    domain::{ImageId, JobState, ProductId, UserId},
};

/// Selects the images whose jobs are meant.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// All images of these products.
    Products(&'a [ProductId]),
    /// These images.
    Images(&'a [ImageId]),
}

/// Locks the live jobs of these products or images without waiting.
/// The locks last until the transaction ends.
/// Returns `false` if another transaction has locked one of them, or if one ended meanwhile. The caller must then roll
/// back: the jobs that were locked would block a transaction that begins another generation. SQLite has one writer
/// anyway.
pub async fn lock_live_jobs(connection: &impl ConnectionTrait, of: Of<'_>) -> Result<bool, Error> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let seen = see(connection, of).await?;
    Ok(lock_jobs(connection, &seen).await? == seen)
}

/// Takes live jobs from their workers and postpones them until `until`.
/// It selects the jobs of these products or images.
/// It skips jobs that another transaction has locked.
pub async fn put_off_live_jobs(
    connection: &impl ConnectionTrait,
    of: Of<'_>,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let seen = see(connection, of).await?;
    let held = lock_jobs(connection, &seen).await?;
    let row = ActiveModel {
        state: Set(JobState::Queued.as_str().into()),
        run_at: Set(until.0),
        dispatched_at: Set(None),
        lease_token: Set(None),
        lease_until: Set(None),
        working_on: Set(None),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    };
    Entity::update_many().set(row).filter(Column::Id.is_in(padded(held))).exec(connection).await?;
    Ok(())
}

/// Deletes products with their images, renditions and jobs.
/// Returns the deleted products and their owners.
pub async fn delete_products(
    connection: &impl ConnectionTrait,
    ids: &[ProductId],
) -> Result<Vec<(ProductId, UserId)>, Error> {
    // SQLite also needs this query first. A connection whose first statement is this deletion has not read the schema
    // yet, and the index of names, whose content is that table, would not find the table.
    let chosen = product::Column::Id.is_in(padded(ids.iter().map(|id| id.0)));
    let present = product::Entity::find().select_only().columns([product::Column::Id, product::Column::UserId]);
    let present = present.filter(chosen).order_by_asc(product::Column::Id);
    let present: Vec<(i64, String)> = present.into_tuple().all(connection).await?;
    let ids = present.iter().map(|(id, _)| *id);
    product::Entity::delete_many().filter(product::Column::Id.is_in(padded(ids))).exec(connection).await?;
    Ok(present.into_iter().map(|(id, user_id)| (ProductId(id), UserId::stored(user_id))).collect())
}

/// Deletes images with their renditions and jobs.
pub async fn delete_images(connection: &impl ConnectionTrait, ids: &[ImageId]) -> Result<(), Error> {
    let chosen = image::Column::Id.is_in(padded(ids.iter().map(|id| id.0)));
    image::Entity::delete_many().filter(chosen).exec(connection).await?;
    Ok(())
}

/// Returns the live jobs of these products or images.
async fn see(connection: &impl ConnectionTrait, of: Of<'_>) -> Result<Vec<i64>, Error> {
    let chosen = match of {
        Of::Images(ids) => Column::ImageId.is_in(padded(ids.iter().map(|id| id.0))),
        Of::Products(ids) => {
            let images = Query::select()
                .column(image::Column::Id)
                .from(image::Entity)
                .and_where(image::Column::ProductId.is_in(padded(ids.iter().map(|id| id.0))))
                .to_owned();
            Column::ImageId.in_subquery(images)
        }
    };
    Ok(live_jobs().filter(chosen).into_tuple().all(connection).await?)
}

/// Locks those of these jobs that are still live and not locked.
async fn lock_jobs(connection: &impl ConnectionTrait, seen: &[i64]) -> Result<Vec<i64>, Error> {
    let held = live_jobs()
        .filter(Column::Id.is_in(padded(seen.iter().copied())))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    Ok(held.into_tuple().all(connection).await?)
}

fn live_jobs() -> Select<Entity> {
    Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::State.is_in([JobState::Queued.as_str(), JobState::Running.as_str()]))
        .order_by_asc(Column::Id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Config, Database, migrate};

    #[tokio::test]
    async fn a_deletion_may_be_the_first_statement_of_a_connection() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("pm.db");
        let database = Database::connect(&Config::Sqlite { path: path.clone() }).await.expect("a database");
        migrate::up(&database, None).await.expect("a schema");
        for database in [database, Database::connect(&Config::Sqlite { path }).await.expect("another")] {
            for _ in 0..3 {
                let write = database.begin().await.expect("a transaction");
                assert_eq!(delete_products(&*write, &[ProductId(1)]).await.expect("an answer"), []);
            }
        }
    }
}
