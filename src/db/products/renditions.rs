//! The table of renditions.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

use crate::{
    db::{
        Error,
        entity::rendition::{ActiveModel, Column, Entity},
        lengths::padded,
    },
    domain::{ImageId, Rendition},
};

/// Returns the renditions of images, largest first.
pub async fn of_images(
    connection: &impl ConnectionTrait,
    ids: Vec<i64>,
) -> Result<HashMap<i64, Vec<Rendition>>, Error> {
    let mut renditions: HashMap<i64, Vec<Rendition>> = HashMap::new();
    if ids.is_empty() {
        return Ok(renditions);
    }
    let rows = Entity::find()
        .filter(Column::ImageId.is_in(padded(ids)))
        .order_by_desc(Expr::col(Column::Width).mul(Expr::col(Column::Height)))
        .order_by_asc(Column::Id)
        .all(connection)
        .await?;
    for row in rows {
        renditions.entry(row.image_id).or_default().push(Rendition {
            preset: row.preset,
            format: row.format,
            width: stored(row.width)?,
            height: stored(row.height)?,
            bytes: stored(row.bytes)?,
            key: row.blob_key,
        });
    }
    Ok(renditions)
}

/// Returns the blob keys of the `limit` newest renditions.
pub async fn newest_keys(connection: &impl ConnectionTrait, limit: u64) -> Result<Vec<String>, Error> {
    let keys = Entity::find().select_only().column(Column::BlobKey).order_by_desc(Column::Id).limit(limit);
    Ok(keys.into_tuple().all(connection).await?)
}

/// Converts a stored size; a negative one is corrupt.
pub(in crate::db) fn stored<From: Copy + std::fmt::Display, To: TryFrom<From>>(size: From) -> Result<To, Error> {
    To::try_from(size).map_err(|_| Error::Corrupt(format!("invalid size {size}")))
}

/// The number of renditions, and of the blobs that they share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Renditions of all images.
    pub renditions: i64,
    /// Blobs that they reference.
    pub blobs: i64,
}

/// Counts all references to blobs; reads the whole index of them.
pub async fn sharing(connection: &impl ConnectionTrait) -> Result<Sharing, Error> {
    let key = Expr::col(Column::BlobKey);
    let counts = Entity::find().select_only().expr(key.clone().count()).expr(key.count_distinct()).into_tuple();
    let (renditions, blobs) = counts.one(connection).await?.ok_or_else(Error::no_row)?;
    Ok(Sharing { renditions, blobs })
}

/// Replaces all renditions of an image, or only those of `presets`.
pub async fn replace(
    connection: &impl ConnectionTrait,
    id: ImageId,
    renditions: &[Rendition],
    presets: Option<&[String]>,
) -> Result<(), Error> {
    let mut old = Entity::delete_many().filter(Column::ImageId.eq(id.0));
    if let Some(presets) = presets {
        old = old.filter(Column::Preset.is_in(presets.iter().map(String::as_str)));
    }
    old.exec(connection).await?;
    if renditions.is_empty() {
        return Ok(());
    }
    let rows = renditions.iter().map(|rendition| ActiveModel {
        id: NotSet,
        image_id: Set(id.0),
        preset: Set(rendition.preset.clone()),
        format: Set(rendition.format.clone()),
        width: Set(i32::try_from(rendition.width).unwrap_or(i32::MAX)),
        height: Set(i32::try_from(rendition.height).unwrap_or(i32::MAX)),
        bytes: Set(i64::try_from(rendition.bytes).unwrap_or(i64::MAX)),
        blob_key: Set(rendition.key.clone()),
    });
    Entity::insert_many(rows).exec_without_returning(connection).await?;
    Ok(())
}
