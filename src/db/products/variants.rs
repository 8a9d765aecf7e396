//! The table of variants, which are made on demand.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::OnConflict,
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::{
            image,
            variant::{ActiveModel, Column, Entity},
        },
    },
    domain::{ImageId, ProductId},
};

/// A variant to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVariant {
    /// The image.
    pub image_id: ImageId,
    /// The requested transformation in its canonical spelling.
    pub name: String,
    /// The blob that it was made from.
    pub source_key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The key of its blob.
    pub key: String,
}

/// Returns the product of an image, and the key of an uploaded source.
pub async fn origin_of(
    connection: &impl ConnectionTrait,
    id: ImageId,
) -> Result<Option<(ProductId, Option<String>)>, Error> {
    let found = image::Entity::find_by_id(id.0).select_only();
    let found = found.column(image::Column::ProductId).column(image::Column::SourceKey);
    let found: Option<(i64, Option<String>)> = found.into_tuple().one(connection).await?;
    Ok(found.map(|(product, key)| (ProductId(product), key)))
}

/// Returns the blob of an image's variant if it was made from `source_key`.
pub async fn find(
    connection: &impl ConnectionTrait,
    id: ImageId,
    name: &str,
    source_key: &str,
) -> Result<Option<String>, Error> {
    let found = Entity::find().select_only().column(Column::BlobKey);
    let found = found.filter(Column::ImageId.eq(id.0)).filter(Column::Name.eq(name));
    let found = found.filter(Column::SourceKey.eq(source_key)).into_tuple();
    Ok(found.one(connection).await?)
}

/// Stores `new` in place of a variant of the same name.
/// If the image then has more than `most` variants, it deletes the oldest ones.
///
/// # Errors
/// [`Error::Missing`](Error) if the image is gone.
pub async fn keep(connection: &impl ConnectionTrait, new: &NewVariant, most: u64, now: Timestamp) -> Result<(), Error> {
    let row = ActiveModel {
        id: NotSet,
        image_id: Set(new.image_id.0),
        name: Set(new.name.clone()),
        source_key: Set(new.source_key.clone()),
        bytes: Set(i64::try_from(new.bytes).unwrap_or(i64::MAX)),
        blob_key: Set(new.key.clone()),
        created_at: Set(now.0),
    };
    let replaced = OnConflict::columns([Column::ImageId, Column::Name])
        .update_columns([Column::SourceKey, Column::Bytes, Column::BlobKey, Column::CreatedAt])
        .to_owned();
    Entity::insert(row).on_conflict(replaced).exec_without_returning(connection).await?;
    let crowded = Entity::find().select_only().column(Column::Id).filter(Column::ImageId.eq(new.image_id.0));
    let crowded: Option<i64> = crowded.order_by_desc(Column::Id).offset(most).into_tuple().one(connection).await?;
    if let Some(newest_to_go) = crowded {
        let old = Entity::delete_many().filter(Column::ImageId.eq(new.image_id.0));
        old.filter(Column::Id.lte(newest_to_go)).exec(connection).await?;
    }
    Ok(())
}
