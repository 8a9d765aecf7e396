//! Questions whose answer is nothing in a database that is whole: for `pm doctor`. Each costs a page, not the table; none
//! changes anything.

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

/// A picture beside its jobs.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct ImageJobs {
    /// The picture's number.
    pub id: i64,
    status: String,
    /// Jobs that wait or run.
    live: i64,
    /// Those of them that belong to the picture's present run.
    present: i64,
}

impl ImageJobs {
    /// Whether it is at rest.
    pub fn is_final(&self) -> bool {
        ImageStatus::parse(&self.status).is_some_and(ImageStatus::is_final)
    }

    /// Whether a live job belongs to its present generation.
    pub const fn has_its_job(&self) -> bool {
        self.present > 0
    }

    /// Whether it is on its way with exactly one job of its present run, or at rest with none.
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

/// Up to `limit` pictures by id, after `after`.
///
/// # Errors
/// If the database does not answer.
pub async fn images(connection: &impl ConnectionTrait, after: i64, limit: u64) -> Result<Vec<ImageJobs>, Error> {
    let sql = format!("{IMAGE_JOBS} WHERE id > $1 ORDER BY id LIMIT $2");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    of_rows(query(connection, &sql, vec![after.into(), limit.into()]).await?)
}

/// These pictures, a few hundred at most; one that is gone is left out.
///
/// # Errors
/// If the database does not answer.
pub async fn images_among(connection: &impl ConnectionTrait, ids: &[i64]) -> Result<Vec<ImageJobs>, Error> {
    let sql = format!("{IMAGE_JOBS} WHERE id IN ({})", list(ids));
    of_rows(query(connection, &sql, Vec::new()).await?)
}

/// How many pictures there are.
///
/// # Errors
/// If the database does not answer.
pub async fn count_images(connection: &impl ConnectionTrait) -> Result<u64, Error> {
    Ok(image::Entity::find().count(connection).await?)
}

/// These products with their pictures; one that is not there is left out.
///
/// # Errors
/// If the database does not answer.
pub async fn products(connection: &impl ConnectionTrait, ids: &[ProductId]) -> Result<Vec<Product>, Error> {
    let ids = ids.iter().map(|id| id.0);
    let rows = product::Entity::find().filter(product::Column::Id.is_in(ids)).all(connection).await?;
    products::with_images(connection, rows).await
}

/// Work that should have been done by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Jobs that are due and were not handed to the broker.
    Undispatched,
    /// Changes that the cache was not told of, or that were not forgotten afterwards.
    Untold,
}

impl Overdue {
    /// The rows and, `$1` being the moment, the condition; then what they are ordered by.
    const fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Undispatched => {
                ("jobs WHERE state = 'queued' AND dispatched_at IS NULL AND run_at < $1", "run_at, id")
            }
            Self::Untold => ("cache_invalidation WHERE created_at < $1", "created_at, id"),
        }
    }

    /// The rows from before `before`, oldest first, at most a hundred; of `among`, if that is given.
    ///
    /// # Errors
    /// If the database does not answer.
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

    /// How many there are from before `before`.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn count(self, connection: &impl ConnectionTrait, before: Timestamp) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) AS rows_left FROM {}", self.sql().0);
        let count: i64 = query_one(connection, &sql, vec![before.0.into()]).await?.try_get("", "rows_left")?;
        Ok(count.unsigned_abs())
    }
}

fn of_rows(rows: Vec<sea_orm::QueryResult>) -> Result<Vec<ImageJobs>, Error> {
    rows.iter().map(|row| Ok(ImageJobs::from_query_result(row, "")?)).collect()
}

/// Numbers as a list in a statement; none fits an empty one.
fn list(ids: &[i64]) -> String {
    if ids.is_empty() {
        return "NULL".into();
    }
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
