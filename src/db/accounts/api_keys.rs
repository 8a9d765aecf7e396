//! The table of API keys.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    prelude::Expr,
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::api_key::{ActiveModel, Column, Entity, Model},
    },
    domain::{ApiKey, ApiKeyId, KeyText, NewApiKey, Scopes, UserId},
};

/// Inserts a key with its hash.
pub async fn insert(
    connection: &impl ConnectionTrait,
    new: &NewApiKey,
    text: &KeyText,
    now: Timestamp,
) -> Result<ApiKey, Error> {
    let row = ActiveModel {
        id: NotSet,
        name: Set(new.name.clone()),
        prefix: Set(text.prefix().to_owned()),
        hash: Set(text.hash()),
        user_id: Set(new.user_id.as_str().to_owned()),
        scopes: Set(new.scopes.to_string()),
        created_at: Set(now.0),
        last_used_at: Set(None),
        expires_at: Set(new.lifetime.map(|lifetime| now.plus(lifetime).0)),
        revoked_at: Set(None),
    };
    Ok(Entity::insert(row).exec_with_returning(connection).await?.into())
}

/// Returns the key with this hash, valid or not.
pub async fn find(connection: &impl ConnectionTrait, hash: &str) -> Result<Option<ApiKey>, Error> {
    Ok(Entity::find().filter(Column::Hash.eq(hash)).one(connection).await?.map(ApiKey::from))
}

/// Returns all keys in the order of their creation.
pub async fn list(connection: &impl ConnectionTrait) -> Result<Vec<ApiKey>, Error> {
    let rows = Entity::find().order_by_asc(Column::Id).all(connection).await?;
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

/// Revokes a key; `false` if it does not exist. A revoked key keeps its time of revocation.
pub async fn revoke(connection: &impl ConnectionTrait, id: ApiKeyId, now: Timestamp) -> Result<bool, Error> {
    let Some(row) = Entity::find_by_id(id.0).one(connection).await? else { return Ok(false) };
    if row.revoked_at.is_none() {
        let update = Entity::update_many().col_expr(Column::RevokedAt, Expr::value(now.0));
        update.filter(Column::Id.eq(id.0)).filter(Column::RevokedAt.is_null()).exec(connection).await?;
    }
    Ok(true)
}

/// Records that a key was used.
pub async fn note_use(connection: &impl ConnectionTrait, id: ApiKeyId, now: Timestamp) -> Result<(), Error> {
    let update = Entity::update_many().col_expr(Column::LastUsedAt, Expr::value(now.0));
    update.filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(())
}

impl From<Model> for ApiKey {
    fn from(row: Model) -> Self {
        Self {
            id: ApiKeyId(row.id),
            name: row.name,
            prefix: row.prefix,
            user_id: UserId::stored(row.user_id),
            scopes: Scopes::among(row.scopes.split(' ')),
            created_at: Timestamp(row.created_at),
            last_used_at: row.last_used_at.map(Timestamp),
            expires_at: row.expires_at.map(Timestamp),
            revoked_at: row.revoked_at.map(Timestamp),
        }
    }
}
