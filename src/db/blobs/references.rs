//! References to blobs: renditions, variants, and images with an uploaded source.

use std::collections::HashSet;

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, PaginatorTrait as _, QueryFilter, QueryOrder, QuerySelect,
    Select,
    sea_query::{Expr, ExprTrait},
};

use crate::{
    db::{
        Error,
        blobs::losses::LOST_SOURCE,
        entity::{image, rendition, variant},
        lengths::padded,
    },
    domain::ImageStatus,
};

/// A kind of reference to a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referrer {
    /// A rendition.
    Rendition,
    /// A variant.
    Variant,
    /// An image's uploaded source.
    Source,
}

/// A referenced blob; it appears once, however many references it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its key as stored in the database.
    pub key: String,
    /// Its size in bytes, if known.
    pub bytes: Option<i64>,
}

impl Referrer {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Rendition, Self::Variant, Self::Source];

    /// Returns up to `limit` referenced blobs after `after`, ordered by key.
    pub async fn page(
        self,
        connection: &impl ConnectionTrait,
        after: &str,
        limit: u64,
    ) -> Result<Vec<Reference>, Error> {
        let pairs: Vec<(String, Option<i64>)> = match self {
            Self::Rendition => {
                let (key, bytes) = (rendition::Column::BlobKey, rendition::Column::Bytes);
                let found = rendition::Entity::find().select_only().column(key).expr(Expr::col(bytes).max());
                let found = found.filter(key.gt(after)).group_by(key).order_by_asc(key).limit(limit);
                found.into_tuple().all(connection).await?
            }
            Self::Variant => {
                let (key, bytes) = (variant::Column::BlobKey, variant::Column::Bytes);
                let found = variant::Entity::find().select_only().column(key).expr(Expr::col(bytes).max());
                let found = found.filter(key.gt(after)).group_by(key).order_by_asc(key).limit(limit);
                found.into_tuple().all(connection).await?
            }
            Self::Source => {
                let key = image::Column::SourceKey;
                let found = sources().filter(is_not_lost()).expr(Expr::value(Option::<i64>::None).cast_as("bigint"));
                let found = found.filter(key.gt(after)).group_by(key).order_by_asc(key).limit(limit);
                found.into_tuple().all(connection).await?
            }
        };
        Ok(pairs.into_iter().map(|(key, bytes)| Reference { key, bytes }).collect())
    }

    /// Returns the number of references, counting each one.
    pub async fn count(self, connection: &impl ConnectionTrait) -> Result<u64, Error> {
        Ok(match self {
            Self::Rendition => rendition::Entity::find().count(connection).await?,
            Self::Variant => variant::Entity::find().count(connection).await?,
            Self::Source => {
                image::Entity::find().filter(image::Column::SourceKey.is_not_null()).count(connection).await?
            }
        })
    }
}

/// Returns those of `keys` (at most a few hundred) that nothing references, in order.
pub async fn unreferenced(connection: &impl ConnectionTrait, keys: &[&str]) -> Result<Vec<String>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = || keys.iter().copied();
    let listed = || padded(keys.iter().copied());
    let made = rendition::Entity::find().select_only().column(rendition::Column::BlobKey).distinct();
    let made = made.filter(rendition::Column::BlobKey.is_in(listed()));
    let on_demand = variant::Entity::find().select_only().column(variant::Column::BlobKey).distinct();
    let on_demand = on_demand.filter(variant::Column::BlobKey.is_in(listed()));
    let given = sources().distinct().filter(image::Column::SourceKey.is_in(listed()));
    let mut referred: HashSet<String> = made.into_tuple::<String>().all(connection).await?.into_iter().collect();
    referred.extend(on_demand.into_tuple::<String>().all(connection).await?);
    referred.extend(given.into_tuple::<String>().all(connection).await?);
    Ok(wanted().filter(|key| !referred.contains(*key)).map(str::to_owned).collect())
}

/// Returns whether the blob is a rendition or a variant.
pub async fn is_made(connection: &impl ConnectionTrait, key: &str) -> Result<bool, Error> {
    let made = rendition::Entity::find().select_only().column(rendition::Column::Id);
    let made: Option<i64> = made.filter(rendition::Column::BlobKey.eq(key)).into_tuple().one(connection).await?;
    if made.is_some() {
        return Ok(true);
    }
    let on_demand = variant::Entity::find().select_only().column(variant::Column::Id);
    let found: Option<i64> = on_demand.filter(variant::Column::BlobKey.eq(key)).into_tuple().one(connection).await?;
    Ok(found.is_some())
}

/// Excludes images that failed because their uploaded file is lost; their row already records it.
fn is_not_lost() -> Condition {
    let codes = LOST_SOURCE.iter().map(|code| code.as_str());
    Condition::any()
        .add(image::Column::ErrorCode.is_null())
        .add(image::Column::ErrorCode.is_not_in(codes))
        .add(image::Column::Status.ne(ImageStatus::Failed.as_str()))
}

fn sources() -> Select<image::Entity> {
    image::Entity::find().select_only().column(image::Column::SourceKey)
}
