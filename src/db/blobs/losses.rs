//! Repairs rows that reference lost blobs or damaged rows of a backup.
//!
//! Each statement takes at most a few hundred keys or ids.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, Statement, Value};
use serde_json::Value as Json;

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{Error, jobs::reruns::Selected, statement::query},
    domain::{ImageId, ProductId},
};

/// Codes of images that failed because their uploaded file is lost; their row already records it.
pub const LOST_SOURCE: [ErrorCode; 2] = [ErrorCode::SourceNotFound, ErrorCode::SourceDamaged];

/// Returns those of `ids` that exist in `table`, as text.
pub async fn present(connection: &impl ConnectionTrait, table: &str, ids: &[&Json]) -> Result<HashSet<String>, Error> {
    let values = ids.iter().map(|id| match id {
        Json::String(text) => Value::from(text.clone()),
        other => Value::from(other.as_i64()),
    });
    let sql = format!("SELECT CAST(id AS TEXT) AS id FROM {table} WHERE id IN ({})", places(ids.len()));
    let rows = query(connection, &sql, values.collect()).await?;
    rows.iter().map(|row| Ok(row.try_get("", "id")?)).collect()
}

/// Deletes the variants with lost blobs, and returns their number. A later request makes them again.
pub async fn delete_variants(connection: &impl ConnectionTrait, keys: &[&str]) -> Result<u64, Error> {
    let sql = format!("DELETE FROM variants WHERE blob_key IN ({})", places(keys.len()));
    execute(connection, &sql, texts(keys)).await
}

/// Returns the images with renditions whose blobs are lost.
pub async fn images_with_renditions(connection: &impl ConnectionTrait, keys: &[&str]) -> Result<Vec<Selected>, Error> {
    let chosen = format!("id IN (SELECT image_id FROM renditions WHERE blob_key IN ({}))", places(keys.len()));
    select(connection, &chosen, texts(keys)).await
}

/// Deletes the renditions of these images whose blobs are lost.
pub async fn delete_renditions(
    connection: &impl ConnectionTrait,
    images: &[Selected],
    keys: &[&str],
) -> Result<u64, Error> {
    let (ids, keys_at) = (places(images.len()), places_from(images.len(), keys.len()));
    let sql = format!("DELETE FROM renditions WHERE image_id IN ({ids}) AND blob_key IN ({keys_at})");
    let values = images.iter().map(|image| image.id.0.into()).chain(texts(keys));
    execute(connection, &sql, values.collect()).await
}

/// Returns the images whose uploaded files are lost.
pub async fn images_with_sources(connection: &impl ConnectionTrait, keys: &[&str]) -> Result<Vec<Selected>, Error> {
    select(connection, &format!("source_key IN ({})", places(keys.len())), texts(keys)).await
}

/// Returns the blob of the image's largest rendition.
pub async fn largest_rendition(connection: &impl ConnectionTrait, image: ImageId) -> Result<Option<String>, Error> {
    const LARGEST: &str =
        "SELECT blob_key FROM renditions WHERE image_id = $1 ORDER BY width * height DESC, id LIMIT 1";
    let rows = query(connection, LARGEST, vec![image.0.into()]).await?;
    Ok(rows.first().map(|row| row.try_get("", "blob_key")).transpose()?)
}

/// Sets another stored file as the image's source.
pub async fn set_source(connection: &impl ConnectionTrait, image: ImageId, key: &str) -> Result<(), Error> {
    const SET: &str = "UPDATE images SET source_key = $2 WHERE id = $1";
    execute(connection, SET, vec![image.0.into(), key.into()]).await.map(|_| ())
}

/// Ends the live jobs of a failed image as dead letters.
pub async fn mark_jobs_dead(
    connection: &impl ConnectionTrait,
    image: ImageId,
    (code, message): (ErrorCode, &str),
    now: Timestamp,
) -> Result<(), Error> {
    const MARK_DEAD: &str = "UPDATE jobs SET state = 'dead', error_code = $2, error_message = $3, updated_at = $4,
            lease_token = NULL, lease_until = NULL, decoding = 0, working_on = NULL
        WHERE image_id = $1 AND state IN ('queued', 'running')";
    let values = vec![image.0.into(), code.as_str().into(), message.into(), now.0.into()];
    execute(connection, MARK_DEAD, values).await.map(|_| ())
}

/// Ends the live jobs of an image that belong to another generation.
pub async fn end_other_jobs(connection: &impl ConnectionTrait, image: &Selected, now: Timestamp) -> Result<u64, Error> {
    const END: &str = "UPDATE jobs SET state = 'done', updated_at = $3, lease_token = NULL, lease_until = NULL,
            decoding = 0, working_on = NULL
        WHERE image_id = $1 AND generation <> $2 AND state IN ('queued', 'running')";
    execute(connection, END, vec![image.id.0.into(), image.generation.into(), now.0.into()]).await
}

/// Changes the live jobs of an image so that they make all presets.
pub async fn widen_jobs(connection: &impl ConnectionTrait, image: ImageId, payload: &str) -> Result<(), Error> {
    const WIDEN: &str = "UPDATE jobs SET payload = $2 WHERE image_id = $1 AND state IN ('queued', 'running')";
    execute(connection, WIDEN, vec![image.0.into(), payload.into()]).await.map(|_| ())
}

/// Returns the current state of these images, without deleted ones.
pub async fn images(connection: &impl ConnectionTrait, ids: &[i64]) -> Result<Vec<Selected>, Error> {
    let values = ids.iter().map(|id| (*id).into()).collect();
    select(connection, &format!("id IN ({})", places(ids.len())), values).await
}

/// Returns up to `limit` images after `after` that would never be finished.
/// They are pending without a live job of their generation, or ready with fewer renditions than the maximum.
pub async fn unfinishable(connection: &impl ConnectionTrait, after: i64, limit: u64) -> Result<Vec<Selected>, Error> {
    const MADE: &str = "(SELECT count(*) FROM renditions WHERE image_id = images.id)";
    let chosen = format!(
        "id > $1 AND (status IN ('pending', 'processing') AND NOT EXISTS (SELECT 1 FROM jobs WHERE image_id = images.id
                AND generation = images.generation AND state IN ('queued', 'running'))
            OR status = 'ready' AND {MADE} < (SELECT max(made) FROM (SELECT count(*) AS made FROM renditions
                GROUP BY image_id) AS counts))
        ORDER BY id LIMIT {limit}"
    );
    select(connection, &chosen, vec![after.into()]).await
}

/// Corrects the status of products that does not match their images.
pub async fn correct_statuses(connection: &impl ConnectionTrait) -> Result<u64, Error> {
    const GIVEN: &str = "CASE
            WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND status IN ('pending', 'processing'))
                THEN 'processing'
            WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND status = 'failed') THEN 'failed'
            ELSE 'ready' END";
    let sql = format!("UPDATE products SET version = version + 1, status = {GIVEN} WHERE status <> {GIVEN}");
    execute(connection, &sql, Vec::new()).await
}

async fn select(connection: &impl ConnectionTrait, chosen: &str, values: Vec<Value>) -> Result<Vec<Selected>, Error> {
    let sql = format!("SELECT id, product_id, generation FROM images WHERE {chosen}");
    let rows = query(connection, &sql, values).await?;
    let image = |row: &sea_orm::QueryResult| {
        Ok(Selected {
            id: ImageId(row.try_get("", "id")?),
            product_id: ProductId(row.try_get("", "product_id")?),
            generation: row.try_get("", "generation")?,
        })
    };
    rows.iter().map(image).collect()
}

fn texts(keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| (*key).into()).collect()
}

/// Returns the parameters `$1, $2 …`; for an empty list, a value that matches nothing.
fn places(count: usize) -> String {
    places_from(0, count)
}

fn places_from(before: usize, count: usize) -> String {
    if count == 0 {
        return "NULL".into();
    }
    (before + 1..=before + count).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ")
}

async fn execute(connection: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.execute_raw(statement).await?.rows_affected())
}
