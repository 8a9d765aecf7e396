//! The owner of a product.

use sea_orm::{ConnectionTrait, EntityTrait, QuerySelect};

use crate::{
    db::{
        Error,
        entity::product::{Column, Entity},
    },
    domain::{ProductId, UserId},
};

/// Returns the owner of a product.
pub async fn find(connection: &impl ConnectionTrait, id: ProductId) -> Result<Option<UserId>, Error> {
    let found: Option<String> =
        Entity::find_by_id(id.0).select_only().column(Column::UserId).into_tuple().one(connection).await?;
    Ok(found.map(UserId::stored))
}
