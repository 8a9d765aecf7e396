//! Removing products and pictures with everything that belongs to them, without getting into the way of those who work on it.

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

/// Whose jobs are meant.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// Those of all pictures of these products.
    Products(&'a [ProductId]),
    /// Those of these pictures.
    Images(&'a [ImageId]),
}

/// Holds the jobs of these products or pictures that wait or run until the transaction ends. `false` if another transaction has one of
/// them, or if one ended meanwhile: then that one may be held as well, which stands in the way of whoever begins another run,
/// so the transaction must go no further. It waits for nobody. SQLite has one writer anyway.
///
/// # Errors
/// If the database does not answer.
pub async fn hold_live_jobs(connection: &impl ConnectionTrait, of: Of<'_>) -> Result<bool, Error> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let seen = see(connection, of).await?;
    Ok(hold(connection, &seen).await? == seen)
}

/// Takes the jobs of these products or pictures that wait or run from their workers and puts them off until `until`, as far as no other
/// transaction has them at this moment.
///
/// # Errors
/// If the database does not answer.
pub async fn put_off_live_jobs(
    connection: &impl ConnectionTrait,
    of: Of<'_>,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let seen = see(connection, of).await?;
    let held = hold(connection, &seen).await?;
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

/// Deletes products with their pictures, renditions and jobs; answers which of them there were, and whose.
///
/// # Errors
/// If the database does not answer.
pub async fn delete_products(
    connection: &impl ConnectionTrait,
    ids: &[ProductId],
) -> Result<Vec<(ProductId, UserId)>, Error> {
    // Looked up first also for SQLite's sake: a connection whose first statement ever is this deletion has not read the schema
    // yet, and the index of names, whose content is that table, then finds no such table.
    let chosen = product::Column::Id.is_in(padded(ids.iter().map(|id| id.0)));
    let present = product::Entity::find().select_only().columns([product::Column::Id, product::Column::UserId]);
    let present = present.filter(chosen).order_by_asc(product::Column::Id);
    let present: Vec<(i64, String)> = present.into_tuple().all(connection).await?;
    let ids = present.iter().map(|(id, _)| *id);
    product::Entity::delete_many().filter(product::Column::Id.is_in(padded(ids))).exec(connection).await?;
    Ok(present.into_iter().map(|(id, user_id)| (ProductId(id), UserId::stored(user_id))).collect())
}

/// Deletes pictures with their renditions and jobs.
///
/// # Errors
/// If the database does not answer.
pub async fn delete_images(connection: &impl ConnectionTrait, ids: &[ImageId]) -> Result<(), Error> {
    let chosen = image::Column::Id.is_in(padded(ids.iter().map(|id| id.0)));
    image::Entity::delete_many().filter(chosen).exec(connection).await?;
    Ok(())
}

/// The jobs of these products or pictures that wait or run.
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

/// Holds those of these jobs that wait or run still and that no other transaction has.
async fn hold(connection: &impl ConnectionTrait, seen: &[i64]) -> Result<Vec<i64>, Error> {
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
    async fn a_deletion_may_be_the_first_thing_that_a_connection_does() {
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
