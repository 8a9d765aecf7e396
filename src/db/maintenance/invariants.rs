//! Queries that find violated invariants, for `pm doctor`.
//!
//! They return no rows in a consistent database. Each reads a page, not the whole table, and none changes anything.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, PaginatorTrait as _, QueryFilter};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::{image, product},
        products,
        statement::{query, query_one},
    },
    domain::{ImageStatus, Product, ProductId},
};

/// An image and its number of jobs.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct ImageJobs {
    /// The image's id.
    pub id: i64,
    status: String,
    /// Jobs that are queued or running.
    live: i64,
    /// Live jobs of the image's current generation.
    present: i64,
}

impl ImageJobs {
    /// Returns whether the image is settled.
    pub fn is_final(&self) -> bool {
        ImageStatus::parse(&self.status).is_some_and(ImageStatus::is_final)
    }

    /// Returns whether a live job belongs to the image's current generation.
    pub const fn has_its_job(&self) -> bool {
        self.present > 0
    }

    /// Returns whether its number of jobs is right.
    /// A pending image has exactly one job of its generation, a settled one has none.
    pub fn is_sound(&self) -> bool {
        match ImageStatus::parse(&self.status) {
            Some(status) if status.is_final() => self.live == 0,
            Some(_) => (self.live, self.present) == (1, 1),
            None => false,
        }
    }
}

const IMAGE_JOBS: &str = "SELECT id, status,
        (SELECT count(*) FROM jobs WHERE image_id = images.id AND state IN ('queued', 'running')) AS live,
        (SELECT count(*) FROM jobs WHERE image_id = images.id AND state IN ('queued', 'running')
            AND generation = images.generation) AS present
    FROM images";

/// Returns up to `limit` images after `after`, ordered by id.
pub async fn images(connection: &impl ConnectionTrait, after: i64, limit: u64) -> Result<Vec<ImageJobs>, Error> {
    let sql = format!("{IMAGE_JOBS} WHERE id > $1 ORDER BY id LIMIT $2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    of_rows(query(connection, &sql, vec![after.into(), limit.into()]).await?)
}

/// Returns these images (at most a few hundred), without deleted ones.
pub async fn images_among(connection: &impl ConnectionTrait, ids: &[i64]) -> Result<Vec<ImageJobs>, Error> {
    let sql = format!("{IMAGE_JOBS} WHERE id IN ({})", list(ids));
    of_rows(query(connection, &sql, Vec::new()).await?)
}

/// Returns the number of images.
pub async fn count_images(connection: &impl ConnectionTrait) -> Result<u64, Error> {
    Ok(image::Entity::find().count(connection).await?)
}

/// Returns these products with their images, without products that do not exist.
pub async fn products(connection: &impl ConnectionTrait, ids: &[ProductId]) -> Result<Vec<Product>, Error> {
    let ids = ids.iter().map(|id| id.0);
    let rows = product::Entity::find().filter(product::Column::Id.is_in(ids)).all(connection).await?;
    products::with_images(connection, rows).await
}

/// Overdue work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Due jobs that were not dispatched to the broker.
    Undispatched,
    /// Pending cache invalidations.
    Pending,
}

impl Overdue {
    /// Returns the table with its condition (`$1` is the time) and sort order.
    const fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Undispatched => {
                ("jobs WHERE state = 'queued' AND dispatched_at IS NULL AND run_at < $1", "run_at, id")
            }
            Self::Pending => ("cache_invalidation WHERE created_at < $1", "created_at, id"),
        }
    }

    /// Returns at most 100 rows from before `before`, oldest first.
    /// With `among` it returns only those rows.
    pub async fn oldest(
        self,
        connection: &impl ConnectionTrait,
        before: Timestamp,
        among: Option<&[i64]>,
    ) -> Result<Vec<i64>, Error> {
        let (rows, order) = self.sql();
        let among = among.map(|ids| format!(" AND id IN ({})", list(ids))).unwrap_or_default();
        let sql = format!("SELECT id FROM {rows}{among} ORDER BY {order} LIMIT 100");
        let rows = query(connection, &sql, vec![before.0.into()]).await?;
        rows.iter().map(|row| Ok(row.try_get("", "id")?)).collect()
    }

    /// Returns the number of rows from before `before`.
    pub async fn count(self, connection: &impl ConnectionTrait, before: Timestamp) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) AS rows_left FROM {}", self.sql().0);
        let count: i64 = query_one(connection, &sql, vec![before.0.into()]).await?.try_get("", "rows_left")?;
        Ok(count.unsigned_abs())
    }
}

fn of_rows(rows: Vec<sea_orm::QueryResult>) -> Result<Vec<ImageJobs>, Error> {
    rows.iter().map(|row| Ok(ImageJobs::from_query_result(row, "")?)).collect()
}

/// Formats ids as a list for `IN`; an empty list matches nothing.
fn list(ids: &[i64]) -> String {
    if ids.is_empty() {
        return "NULL".into();
    }
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
