//! The table of images.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Error,
        entity::image::{ActiveModel, Column, Entity, Model},
        lengths::{padded, parts},
        products::renditions,
    },
    domain::{Content, Facts, Image, ImageId, ImageSource, ImageStatus, ProductId, Rendition},
};

/// The fields of an image that a worker needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The image's product.
    pub product_id: ProductId,
    /// The image's source.
    pub source: ImageSource,
}

/// Inserts pending images at their positions, and returns their ids in the same order.
pub async fn insert_all(
    connection: &impl ConnectionTrait,
    images: &[(ProductId, i32, ImageSource)],
    now: Timestamp,
) -> Result<Vec<ImageId>, Error> {
    let mut ids = Vec::with_capacity(images.len());
    for some in parts(images) {
        let rows = some.iter().map(|(product_id, position, source)| pending_row(*product_id, *position, source, now));
        let inserted = Entity::insert_many(rows).exec_with_returning(connection).await?;
        let numbers: HashMap<_, _> =
            inserted.into_iter().map(|row| ((row.product_id, row.position), ImageId(row.id))).collect();
        for (product_id, position, _) in some {
            let id = numbers.get(&(product_id.0, *position));
            ids.push(*id.ok_or_else(|| Error::Corrupt("an inserted image has no id".into()))?);
        }
    }
    Ok(ids)
}

/// Moves images of a product to new positions.
/// No new position may be that of an image that is not moved.
pub async fn move_to(connection: &impl ConnectionTrait, places: &[(ImageId, i32)]) -> Result<(), Error> {
    // Positions are unique after every statement, so all images first move to negative positions.
    let aside = Expr::col(Column::Position).mul(-1).sub(1);
    Entity::update_many()
        .col_expr(Column::Position, aside)
        .filter(Column::Id.is_in(padded(places.iter().map(|(id, _)| id.0))))
        .exec(connection)
        .await?;
    for (id, position) in places {
        let row = ActiveModel { position: Set(*position), ..ActiveModel::default() };
        update(connection, *id, row).await?;
    }
    Ok(())
}

/// Returns the images of products, ordered by position within each product.
pub async fn of_products(
    connection: &impl ConnectionTrait,
    ids: &[ProductId],
) -> Result<HashMap<ProductId, Vec<Image>>, Error> {
    let mut images: HashMap<ProductId, Vec<Image>> = HashMap::new();
    if ids.is_empty() {
        return Ok(images);
    }
    let rows = Entity::find()
        .filter(Column::ProductId.is_in(padded(ids.iter().map(|id| id.0))))
        .order_by_asc(Column::ProductId)
        .order_by_asc(Column::Position)
        .all(connection)
        .await?;
    let mut renditions = renditions::of_images(connection, rows.iter().map(|row| row.id).collect()).await?;
    for row in rows {
        let made = renditions.remove(&row.id).unwrap_or_default();
        images.entry(ProductId(row.product_id)).or_default().push(image_of(row, made)?);
    }
    Ok(images)
}

/// Returns the fields of an image that a worker needs.
pub async fn work(connection: &impl ConnectionTrait, id: ImageId) -> Result<Option<Work>, Error> {
    let Some(row) = Entity::find_by_id(id.0).one(connection).await? else {
        return Ok(None);
    };
    Ok(Some(Work { product_id: ProductId(row.product_id), source: source_of(row.id, row.source_url, row.source_key)? }))
}

/// Returns the product of an image.
pub async fn product_of(connection: &impl ConnectionTrait, id: ImageId) -> Result<Option<ProductId>, Error> {
    let product: Option<i64> =
        Entity::find_by_id(id.0).select_only().column(Column::ProductId).into_tuple().one(connection).await?;
    Ok(product.map(ProductId))
}

/// Marks an image as processing.
pub async fn set_processing(
    connection: &impl ConnectionTrait,
    id: ImageId,
    attempts: i32,
    now: Timestamp,
) -> Result<(), Error> {
    let row = ActiveModel { attempts: Set(attempts), ..changed(ImageStatus::Processing, now) };
    update(connection, id, row).await
}

/// Marks an image as waiting for another attempt.
/// Stores the error of the last attempt if it failed.
pub async fn set_pending(
    connection: &impl ConnectionTrait,
    id: ImageId,
    error: Option<(ErrorCode, &str)>,
    now: Timestamp,
) -> Result<(), Error> {
    update(connection, id, with_error(changed(ImageStatus::Pending, now), error)).await
}

/// Marks an image as pending, as if the last attempt had not begun.
pub async fn set_untried(
    connection: &impl ConnectionTrait,
    id: ImageId,
    attempts: i32,
    now: Timestamp,
) -> Result<(), Error> {
    let row = ActiveModel { attempts: Set(attempts), ..changed(ImageStatus::Pending, now) };
    update(connection, id, row).await
}

/// Marks images as pending and resets their attempts.
pub async fn restart_attempts(connection: &impl ConnectionTrait, ids: &[ImageId], now: Timestamp) -> Result<(), Error> {
    let row = ActiveModel { attempts: Set(0), ..changed(ImageStatus::Pending, now) };
    Entity::update_many().set(row).filter(Column::Id.is_in(padded(ids.iter().map(|id| id.0)))).exec(connection).await?;
    Ok(())
}

/// Marks an image as failed for good.
pub async fn set_failed(
    connection: &impl ConnectionTrait,
    id: ImageId,
    error: (ErrorCode, &str),
    now: Timestamp,
) -> Result<(), Error> {
    update(connection, id, with_error(changed(ImageStatus::Failed, now), Some(error))).await
}

/// Returns another ready image with the same content, locked until the transaction ends.
pub async fn duplicate(
    connection: &impl ConnectionTrait,
    content: &Content,
    id: ImageId,
) -> Result<Option<Image>, Error> {
    let found = Entity::find()
        .filter(Column::SourceSha256.eq(content.sha256.as_str()))
        .filter(Column::Recipe.eq(content.pipeline_fingerprint.as_str()))
        .filter(Column::Status.eq(ImageStatus::Ready.as_str()))
        .filter(Column::Id.ne(id.0))
        .limit(1)
        .lock_shared();
    let Some(row) = found.one(connection).await? else { return Ok(None) };
    let made = renditions::of_images(connection, vec![row.id]).await?.remove(&row.id).unwrap_or_default();
    image_of(row, made).map(Some)
}

/// Returns whether all stored results of an image were made from this content.
pub async fn is_made_of(connection: &impl ConnectionTrait, id: ImageId, content: &Content) -> Result<bool, Error> {
    let row = Entity::find_by_id(id.0).one(connection).await?;
    Ok(row.is_some_and(|row| {
        row.source_sha256.as_ref() == Some(&content.sha256)
            && row.recipe.as_ref() == Some(&content.pipeline_fingerprint)
    }))
}

/// Marks an image as ready and stores its properties.
/// `whole` says that all its stored results were made from `content`.
pub async fn set_ready(
    connection: &impl ConnectionTrait,
    id: ImageId,
    (content, whole): (&Content, bool),
    facts: &Facts,
    warnings: &[String],
    now: Timestamp,
) -> Result<(), Error> {
    let warnings = serde_json::to_string(warnings).map_err(|error| Error::Corrupt(error.to_string()))?;
    let row = ActiveModel {
        width: Set(i32::try_from(facts.width).ok()),
        height: Set(i32::try_from(facts.height).ok()),
        format: Set(Some(facts.format.clone())),
        bytes: Set(i64::try_from(facts.bytes).ok()),
        thumbhash: Set(Some(facts.thumbhash.clone())),
        dominant_color: Set(Some(facts.dominant_color.clone())),
        perceptual_hash: Set(facts.perceptual_hash.clone()),
        source_sha256: Set(Some(content.sha256.clone())),
        recipe: Set(whole.then(|| content.pipeline_fingerprint.clone())),
        warnings: Set(warnings),
        ..with_error(changed(ImageStatus::Ready, now), None)
    };
    update(connection, id, row).await
}

/// Returns the statuses of images, without deleted ones.
pub async fn statuses(connection: &impl ConnectionTrait, ids: &[ImageId]) -> Result<Vec<ImageStatus>, Error> {
    // Both databases limit the number of values per statement.
    const BATCH_ROWS: usize = 1_000;
    let mut statuses = Vec::with_capacity(ids.len());
    for some in ids.chunks(BATCH_ROWS) {
        let words: Vec<String> = Entity::find()
            .select_only()
            .column(Column::Status)
            .filter(Column::Id.is_in(padded(some.iter().map(|id| id.0))))
            .into_tuple()
            .all(connection)
            .await?;
        for word in words {
            statuses.push(ImageStatus::parse(&word).ok_or_else(|| Error::Corrupt(format!("image status {word}")))?);
        }
    }
    Ok(statuses)
}

fn pending_row(product_id: ProductId, position: i32, source: &ImageSource, now: Timestamp) -> ActiveModel {
    let (source_url, source_key) = match source {
        ImageSource::Url(url) => (Some(url.clone()), None),
        ImageSource::Stored(key) => (None, Some(key.clone())),
    };
    ActiveModel {
        product_id: Set(product_id.0),
        position: Set(position),
        source_url: Set(source_url),
        source_key: Set(source_key),
        status: Set(ImageStatus::Pending.as_str().into()),
        generation: Set(1),
        attempts: Set(0),
        warnings: Set("[]".into()),
        created_at: Set(now.0),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    }
}

fn changed(status: ImageStatus, now: Timestamp) -> ActiveModel {
    ActiveModel { status: Set(status.as_str().into()), updated_at: Set(now.0), ..ActiveModel::default() }
}

fn with_error(row: ActiveModel, error: Option<(ErrorCode, &str)>) -> ActiveModel {
    let (code, message) = error.map(|(code, message)| (code.as_str().to_owned(), message.to_owned())).unzip();
    ActiveModel { error_code: Set(code), error_message: Set(message), ..row }
}

async fn update(connection: &impl ConnectionTrait, id: ImageId, row: ActiveModel) -> Result<(), Error> {
    Entity::update_many().set(row).filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(())
}

/// Returns an image's source from its two columns.
pub(in crate::db) fn source_of(id: i64, url: Option<String>, key: Option<String>) -> Result<ImageSource, Error> {
    match (url, key) {
        (Some(url), _) => Ok(ImageSource::Url(url)),
        (None, Some(key)) => Ok(ImageSource::Stored(key)),
        (None, None) => Err(Error::Corrupt(format!("image {id} has no source"))),
    }
}

fn image_of(row: Model, renditions: Vec<Rendition>) -> Result<Image, Error> {
    let source = source_of(row.id, row.source_url.clone(), row.source_key.clone())?;
    let status = ImageStatus::parse(&row.status)
        .ok_or_else(|| Error::Corrupt(format!("image {} has the status {}", row.id, row.status)))?;
    let warnings = serde_json::from_str(&row.warnings)
        .map_err(|error| Error::Corrupt(format!("image {} has invalid warnings: {error}", row.id)))?;
    let error = row.error_code.map(|code| {
        let code = ErrorCode::parse(&code).unwrap_or(ErrorCode::Internal);
        (code, row.error_message.unwrap_or_default())
    });
    let facts = match (row.width, row.height, row.format, row.bytes) {
        (Some(width), Some(height), Some(format), Some(bytes)) => Some(Facts {
            width: renditions::stored(width)?,
            height: renditions::stored(height)?,
            format,
            bytes: renditions::stored(bytes)?,
            thumbhash: row.thumbhash.unwrap_or_default(),
            dominant_color: row.dominant_color.unwrap_or_default(),
            perceptual_hash: row.perceptual_hash,
        }),
        _ => None,
    };
    Ok(Image {
        id: ImageId(row.id),
        position: row.position,
        source,
        status,
        attempts: row.attempts,
        error,
        facts,
        renditions,
        warnings,
        updated_at: Timestamp(row.updated_at),
    })
}
