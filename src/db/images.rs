//! Rows of pictures and their renditions.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Error,
        entity::{
            image::{ActiveModel, Column, Entity, Model},
            product, rendition,
        },
    },
    domain::{Facts, Image, ImageId, ImageSource, ImageStatus, ProductId, Rendition, UserId},
};

/// What a worker needs to know of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The product it belongs to.
    pub product_id: ProductId,
    /// Where its bytes come from.
    pub source: ImageSource,
}

/// Which pictures are meant, for running them again: only those at rest, since the others have a live job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these products'; all if empty.
    pub products: Vec<ProductId>,
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// With these statuses.
    pub statuses: Vec<ImageStatus>,
    /// Only pictures that were last changed at or after this.
    pub since: Option<Timestamp>,
}

/// A picture at rest that was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The picture.
    pub id: ImageId,
    /// Its product.
    pub product_id: ProductId,
    /// Its present run's number.
    pub generation: i32,
}

/// Stores a product's pictures as pending, from position 0 on, and answers their numbers in order.
///
/// # Errors
/// If the database does not answer.
pub async fn insert_all(
    connection: &impl ConnectionTrait,
    product_id: ProductId,
    sources: &[ImageSource],
    now: Timestamp,
) -> Result<Vec<ImageId>, Error> {
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let rows = (0..).zip(sources).map(|(position, source)| pending_row(product_id, position, source, now));
    let mut inserted = Entity::insert_many(rows).exec_with_returning(connection).await?;
    inserted.sort_by_key(|row| row.position);
    Ok(inserted.into_iter().map(|row| ImageId(row.id)).collect())
}

/// The pictures of products, each product's by position.
///
/// # Errors
/// If the database does not answer.
pub async fn of_products(
    connection: &impl ConnectionTrait,
    ids: &[ProductId],
) -> Result<HashMap<ProductId, Vec<Image>>, Error> {
    let mut images: HashMap<ProductId, Vec<Image>> = HashMap::new();
    if ids.is_empty() {
        return Ok(images);
    }
    let rows = Entity::find()
        .filter(Column::ProductId.is_in(ids.iter().map(|id| id.0)))
        .order_by_asc(Column::ProductId)
        .order_by_asc(Column::Position)
        .all(connection)
        .await?;
    let mut renditions = renditions_of(connection, rows.iter().map(|row| row.id).collect()).await?;
    for row in rows {
        let made = renditions.remove(&row.id).unwrap_or_default();
        images.entry(ProductId(row.product_id)).or_default().push(image_of(row, made)?);
    }
    Ok(images)
}

/// What a worker needs to know of a picture.
///
/// # Errors
/// If the database does not answer.
pub async fn work(connection: &impl ConnectionTrait, id: ImageId) -> Result<Option<Work>, Error> {
    let Some(row) = Entity::find_by_id(id.0).one(connection).await? else {
        return Ok(None);
    };
    Ok(Some(Work { product_id: ProductId(row.product_id), source: source_of(&row)? }))
}

/// The product of a picture.
///
/// # Errors
/// If the database does not answer.
pub async fn product_of(connection: &impl ConnectionTrait, id: ImageId) -> Result<Option<ProductId>, Error> {
    let product: Option<i64> =
        Entity::find_by_id(id.0).select_only().column(Column::ProductId).into_tuple().one(connection).await?;
    Ok(product.map(ProductId))
}

/// Marks a picture as being worked on.
///
/// # Errors
/// If the database does not answer.
pub async fn set_processing(
    connection: &impl ConnectionTrait,
    id: ImageId,
    attempts: i32,
    now: Timestamp,
) -> Result<(), Error> {
    let row = ActiveModel { attempts: Set(attempts), ..changed(id, ImageStatus::Processing, now) };
    update(connection, row).await
}

/// Marks a picture as waiting for another attempt, with the error of the last one if it failed.
///
/// # Errors
/// If the database does not answer.
pub async fn set_pending(
    connection: &impl ConnectionTrait,
    id: ImageId,
    error: Option<(ErrorCode, &str)>,
    now: Timestamp,
) -> Result<(), Error> {
    update(connection, with_error(changed(id, ImageStatus::Pending, now), error)).await
}

/// Marks a picture as failed for good.
///
/// # Errors
/// If the database does not answer.
pub async fn set_failed(
    connection: &impl ConnectionTrait,
    id: ImageId,
    error: (ErrorCode, &str),
    now: Timestamp,
) -> Result<(), Error> {
    update(connection, with_error(changed(id, ImageStatus::Failed, now), Some(error))).await
}

/// Marks a picture as ready with what is known of it now.
///
/// # Errors
/// If the database does not answer.
pub async fn set_ready(
    connection: &impl ConnectionTrait,
    id: ImageId,
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
        warnings: Set(warnings),
        ..with_error(changed(id, ImageStatus::Ready, now), None)
    };
    update(connection, row).await
}

/// Puts `renditions` in the place of a picture's present ones, or only of those of `presets`.
///
/// # Errors
/// If the database does not answer.
pub async fn replace_renditions(
    connection: &impl ConnectionTrait,
    id: ImageId,
    renditions: &[Rendition],
    presets: Option<&[String]>,
) -> Result<(), Error> {
    let mut old = rendition::Entity::delete_many().filter(rendition::Column::ImageId.eq(id.0));
    if let Some(presets) = presets {
        old = old.filter(rendition::Column::Preset.is_in(presets.iter().map(String::as_str)));
    }
    old.exec(connection).await?;
    if renditions.is_empty() {
        return Ok(());
    }
    let rows = renditions.iter().map(|rendition| rendition::ActiveModel {
        id: NotSet,
        image_id: Set(id.0),
        preset: Set(rendition.preset.clone()),
        format: Set(rendition.format.clone()),
        width: Set(i32::try_from(rendition.width).unwrap_or(i32::MAX)),
        height: Set(i32::try_from(rendition.height).unwrap_or(i32::MAX)),
        bytes: Set(i64::try_from(rendition.bytes).unwrap_or(i64::MAX)),
        blob_key: Set(rendition.key.clone()),
    });
    rendition::Entity::insert_many(rows).exec_without_returning(connection).await?;
    Ok(())
}

/// Starts a new run of pictures at rest: pending, no attempt yet.
///
/// # Errors
/// If the database does not answer.
pub async fn begin_run(connection: &impl ConnectionTrait, images: &[Selected], now: Timestamp) -> Result<(), Error> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(ImageStatus::Pending.as_str()))
        .col_expr(Column::Generation, Expr::col(Column::Generation).add(1))
        .col_expr(Column::Attempts, Expr::value(0))
        .col_expr(Column::UpdatedAt, Expr::value(now.0))
        .filter(Column::Id.is_in(images.iter().map(|image| image.id.0)))
        .exec(connection)
        .await?;
    Ok(())
}

/// Up to `limit` selected pictures by id, after `after`.
///
/// # Errors
/// If the database does not answer.
pub async fn select(
    connection: &impl ConnectionTrait,
    selection: &Selection,
    after: Option<ImageId>,
    limit: u64,
) -> Result<Vec<Selected>, Error> {
    let mut found = selected(selection)
        .select_only()
        .columns([Column::Id, Column::ProductId, Column::Generation])
        .order_by_asc(Column::Id)
        .limit(limit);
    if let Some(after) = after {
        found = found.filter(Column::Id.gt(after.0));
    }
    let rows: Vec<(i64, i64, i32)> = found.into_tuple().all(connection).await?;
    Ok(rows
        .into_iter()
        .map(|(id, product_id, generation)| Selected {
            id: ImageId(id),
            product_id: ProductId(product_id),
            generation,
        })
        .collect())
}

/// Those of `chosen` that are at rest in the same run still; asked once their products are held.
///
/// # Errors
/// If the database does not answer.
pub async fn still_at_rest(connection: &impl ConnectionTrait, chosen: &[Selected]) -> Result<Vec<Selected>, Error> {
    let rows: Vec<(i64, i32, String)> = Entity::find()
        .select_only()
        .columns([Column::Id, Column::Generation, Column::Status])
        .filter(Column::Id.is_in(chosen.iter().map(|image| image.id.0)))
        .into_tuple()
        .all(connection)
        .await?;
    let at_rest = |image: &&Selected| {
        rows.iter().any(|(id, generation, status)| {
            *id == image.id.0
                && *generation == image.generation
                && ImageStatus::parse(status).is_some_and(ImageStatus::is_final)
        })
    };
    Ok(chosen.iter().filter(at_rest).copied().collect())
}

/// How many pictures are selected.
///
/// # Errors
/// If the database does not answer.
pub async fn count(connection: &impl ConnectionTrait, selection: &Selection) -> Result<u64, Error> {
    use sea_orm::PaginatorTrait as _;
    Ok(selected(selection).count(connection).await?)
}

/// The statuses of pictures; one that is gone is left out.
///
/// # Errors
/// If the database does not answer.
pub async fn statuses(connection: &impl ConnectionTrait, ids: &[ImageId]) -> Result<Vec<ImageStatus>, Error> {
    // Both databases bound the number of values in one statement.
    const AT_ONCE: usize = 1_000;
    let mut statuses = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        let words: Vec<String> = Entity::find()
            .select_only()
            .column(Column::Status)
            .filter(Column::Id.is_in(some.iter().map(|id| id.0)))
            .into_tuple()
            .all(connection)
            .await?;
        for word in words {
            statuses.push(ImageStatus::parse(&word).ok_or_else(|| Error::Corrupt(format!("image status {word}")))?);
        }
    }
    Ok(statuses)
}

fn selected(selection: &Selection) -> sea_orm::Select<Entity> {
    let mut select = Entity::find().filter(Column::Status.is_in(selection.statuses.iter().map(|status| status.as_str())));
    if !selection.products.is_empty() {
        select = select.filter(Column::ProductId.is_in(selection.products.iter().map(|id| id.0)));
    }
    if let Some(user_id) = &selection.user_id {
        let products = sea_orm::sea_query::Query::select()
            .column(product::Column::Id)
            .from(product::Entity)
            .and_where(Expr::col(product::Column::UserId).eq(user_id.as_str()))
            .to_owned();
        select = select.filter(Column::ProductId.in_subquery(products));
    }
    if let Some(since) = selection.since {
        select = select.filter(Column::UpdatedAt.gte(since.0));
    }
    select
}

async fn renditions_of(
    connection: &impl ConnectionTrait,
    ids: Vec<i64>,
) -> Result<HashMap<i64, Vec<Rendition>>, Error> {
    let mut renditions: HashMap<i64, Vec<Rendition>> = HashMap::new();
    if ids.is_empty() {
        return Ok(renditions);
    }
    let rows = rendition::Entity::find()
        .filter(rendition::Column::ImageId.is_in(ids))
        .order_by_desc(Expr::col(rendition::Column::Width).mul(Expr::col(rendition::Column::Height)))
        .order_by_asc(rendition::Column::Id)
        .all(connection)
        .await?;
    for row in rows {
        renditions.entry(row.image_id).or_default().push(Rendition {
            preset: row.preset,
            format: row.format,
            width: u32::try_from(row.width).unwrap_or(0),
            height: u32::try_from(row.height).unwrap_or(0),
            bytes: u64::try_from(row.bytes).unwrap_or(0),
            key: row.blob_key,
        });
    }
    Ok(renditions)
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

fn changed(id: ImageId, status: ImageStatus, now: Timestamp) -> ActiveModel {
    ActiveModel {
        id: Set(id.0),
        status: Set(status.as_str().into()),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    }
}

fn with_error(row: ActiveModel, error: Option<(ErrorCode, &str)>) -> ActiveModel {
    let (code, message) = error.map(|(code, message)| (code.as_str().to_owned(), message.to_owned())).unzip();
    ActiveModel { error_code: Set(code), error_message: Set(message), ..row }
}

async fn update(connection: &impl ConnectionTrait, row: ActiveModel) -> Result<(), Error> {
    Entity::update_many().set(row.clone()).filter(Column::Id.eq(row.id.unwrap())).exec(connection).await?;
    Ok(())
}

fn source_of(row: &Model) -> Result<ImageSource, Error> {
    match (&row.source_url, &row.source_key) {
        (Some(url), _) => Ok(ImageSource::Url(url.clone())),
        (None, Some(key)) => Ok(ImageSource::Stored(key.clone())),
        (None, None) => Err(Error::Corrupt(format!("image {} has no source", row.id))),
    }
}

fn image_of(row: Model, renditions: Vec<Rendition>) -> Result<Image, Error> {
    let source = source_of(&row)?;
    let status = ImageStatus::parse(&row.status)
        .ok_or_else(|| Error::Corrupt(format!("image {} has the status {}", row.id, row.status)))?;
    let warnings = serde_json::from_str(&row.warnings)
        .map_err(|error| Error::Corrupt(format!("image {} has odd warnings: {error}", row.id)))?;
    let error = row.error_code.map(|code| {
        let code = ErrorCode::parse(&code).unwrap_or(ErrorCode::Internal);
        (code, row.error_message.unwrap_or_default())
    });
    let facts = match (row.width, row.height, row.format, row.bytes) {
        (Some(width), Some(height), Some(format), Some(bytes)) => Some(Facts {
            width: u32::try_from(width).unwrap_or(0),
            height: u32::try_from(height).unwrap_or(0),
            format,
            bytes: u64::try_from(bytes).unwrap_or(0),
            thumbhash: row.thumbhash.unwrap_or_default(),
            dominant_color: row.dominant_color.unwrap_or_default(),
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
