//! Lists, requeues, ends and deletes dead letters (jobs that failed for good).
//!
//! A dead letter is current only while its image has the same generation; starting another generation ends it.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryResult, Value, sea_query::Expr,
};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Error,
        entity::job::{ActiveModel, Column, Entity},
        jobs::leases,
        lengths::padded,
        statement::{query, skip_locked},
    },
    domain::{DeadLetter, DeadLetterCursor, DeadQuery, ImageId, ImageSource, JobId, JobState, ProductId},
};

/// A job of any state, looked up by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The product of the job's image.
    pub product_id: ProductId,
    /// Whether the job failed for good.
    pub dead: bool,
    /// Whether the image has a newer generation.
    pub outdated: bool,
}

/// A dead letter that may be requeued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its position in the list of dead letters.
    pub cursor: DeadLetterCursor,
    /// The product of the job's image.
    pub product_id: ProductId,
}

const SHOWN: &str = "SELECT jobs.id, image_id, product_id, source_url, source_key, jobs.error_code, jobs.error_message,
        attempt, crashes, request_id, jobs.created_at, jobs.updated_at
     FROM jobs JOIN images ON images.id = jobs.image_id
     WHERE state = 'dead' AND jobs.generation = images.generation";

/// Returns dead letters, newest first.
/// Returns one more than the page size if there is another page.
pub async fn list(connection: &impl ConnectionTrait, wanted: &DeadQuery) -> Result<Vec<DeadLetter>, Error> {
    let limit = i64::try_from(wanted.limit + 1).unwrap_or(i64::MAX);
    let latest = DeadLetterCursor { died_at: Timestamp(i64::MAX), id: JobId(i64::MAX) };
    let before = wanted.before.unwrap_or(latest);
    let sql = format!(
        "{SHOWN} AND (jobs.updated_at, jobs.id) < ($1, $2) ORDER BY jobs.updated_at DESC, jobs.id DESC LIMIT $3"
    );
    let rows = query(connection, &sql, vec![before.died_at.0.into(), before.id.0.into(), limit.into()]).await?;
    rows.iter().map(letter_of).collect()
}

/// Returns the dead letter with this id.
pub async fn find(connection: &impl ConnectionTrait, id: JobId) -> Result<Option<DeadLetter>, Error> {
    let rows = query(connection, &format!("{SHOWN} AND jobs.id = $1"), vec![id.0.into()]).await?;
    rows.first().map(letter_of).transpose()
}

/// Returns the job with this id, whatever its state.
pub async fn asked(connection: &impl ConnectionTrait, id: JobId) -> Result<Option<Asked>, Error> {
    const ASKED: &str = "SELECT product_id, state, jobs.generation < images.generation AS outdated
         FROM jobs JOIN images ON images.id = jobs.image_id WHERE jobs.id = $1";
    let rows = query(connection, ASKED, vec![id.0.into()]).await?;
    let asked = |row: &QueryResult| {
        Ok(Asked {
            product_id: ProductId(row.try_get("", "product_id")?),
            dead: row.try_get::<String>("", "state")? == JobState::Dead.as_str(),
            outdated: row.try_get("", "outdated")?,
        })
    };
    rows.first().map(asked).transpose()
}

/// Returns dead letters that died at or before `until`, oldest first, after `after`.
pub async fn choose(
    connection: &impl ConnectionTrait,
    after: Option<DeadLetterCursor>,
    until: Timestamp,
    limit: u64,
) -> Result<Vec<Chosen>, Error> {
    const CHOOSE: &str = "SELECT jobs.id, product_id, jobs.updated_at
         FROM jobs JOIN images ON images.id = jobs.image_id
         WHERE state = 'dead' AND jobs.generation = images.generation
            AND (jobs.updated_at, jobs.id) > ($1, $2) AND jobs.updated_at <= $3
         ORDER BY jobs.updated_at, jobs.id LIMIT $4";
    let after = after.unwrap_or(DeadLetterCursor { died_at: Timestamp(i64::MIN), id: JobId(0) });
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values: Vec<Value> = vec![after.died_at.0.into(), after.id.0.into(), until.0.into(), limit.into()];
    let chosen = |row: &QueryResult| {
        Ok(Chosen {
            cursor: DeadLetterCursor {
                died_at: Timestamp(row.try_get("", "updated_at")?),
                id: JobId(row.try_get("", "id")?),
            },
            product_id: ProductId(row.try_get("", "product_id")?),
        })
    };
    query(connection, CHOOSE, values).await?.iter().map(chosen).collect()
}

/// Requeues dead letters as new jobs and returns their ids and images.
/// It skips dead letters of an older generation. The caller must have locked the products, so that no other generation
/// begins meanwhile.
pub async fn requeue(
    connection: &impl ConnectionTrait,
    ids: &[JobId],
    now: Timestamp,
) -> Result<Vec<(JobId, ImageId)>, Error> {
    let row = ActiveModel {
        state: Set(JobState::Queued.as_str().into()),
        attempt: Set(0),
        crashes: Set(0),
        decoding: Set(0),
        run_at: Set(now.0),
        dispatched_at: Set(None),
        error_code: Set(None),
        error_message: Set(None),
        created_at: Set(now.0),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    };
    let present = "generation = (SELECT images.generation FROM images WHERE images.id = jobs.image_id)";
    let queued = Entity::update_many()
        .set(row)
        .filter(Column::Id.is_in(padded(ids.iter().map(|id| id.0))))
        .filter(Column::State.eq(JobState::Dead.as_str()))
        .filter(Expr::cust(present))
        .exec_with_returning(connection)
        .await?;
    let queued: Vec<_> = queued.into_iter().map(|job| (JobId(job.id), ImageId(job.image_id))).collect();
    let jobs: Vec<_> = queued.iter().map(|(job, _)| *job).collect();
    leases::delete_losses(connection, &jobs).await?;
    Ok(queued)
}

/// Ends the dead letters of images that begin another generation.
pub async fn end(connection: &impl ConnectionTrait, images: &[ImageId], now: Timestamp) -> Result<(), Error> {
    let row =
        ActiveModel { state: Set(JobState::Done.as_str().into()), updated_at: Set(now.0), ..ActiveModel::default() };
    Entity::update_many()
        .set(row)
        .filter(Column::ImageId.is_in(padded(images.iter().map(|id| id.0))))
        .filter(Column::State.eq(JobState::Dead.as_str()))
        .exec(connection)
        .await?;
    Ok(())
}

/// Deletes up to `limit` dead letters and returns their number.
/// It deletes those that died at or before `until`.
pub async fn purge(connection: &impl ConnectionTrait, until: Timestamp, limit: u64) -> Result<u64, Error> {
    let sql = format!(
        "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'dead' AND updated_at <= $1
            ORDER BY updated_at, id LIMIT $2{}) RETURNING id",
        skip_locked(connection)
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(query(connection, &sql, vec![until.0.into(), limit.into()]).await?.len() as u64)
}

fn letter_of(row: &QueryResult) -> Result<DeadLetter, Error> {
    let id = JobId(row.try_get("", "id")?);
    let source = match (row.try_get("", "source_url")?, row.try_get("", "source_key")?) {
        (Some(url), _) => ImageSource::Url(url),
        (None, Some(key)) => ImageSource::Stored(key),
        (None, None) => return Err(Error::Corrupt(format!("the image of job {id} has no source"))),
    };
    let (code, message): (Option<String>, Option<String>) =
        (row.try_get("", "error_code")?, row.try_get("", "error_message")?);
    let error = code.map(|code| (ErrorCode::parse(&code).unwrap_or(ErrorCode::Internal), message.unwrap_or_default()));
    Ok(DeadLetter {
        id,
        product_id: ProductId(row.try_get("", "product_id")?),
        image_id: ImageId(row.try_get("", "image_id")?),
        source,
        error,
        attempts: row.try_get("", "attempt")?,
        crashes: row.try_get("", "crashes")?,
        request_id: row.try_get("", "request_id")?,
        queued_at: Timestamp(row.try_get("", "created_at")?),
        died_at: Timestamp(row.try_get("", "updated_at")?),
    })
}
