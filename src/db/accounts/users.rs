//! The table of users.

use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, prelude::Expr};
use sea_orm::{ColumnTrait, sea_query::OnConflict};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::user::{ActiveModel, Column, Entity, Model},
    },
    domain::{User, UserId, UserQuery},
};

/// Inserts a user.
///
/// # Errors
/// [`Error::Duplicate`] if the id already exists.
pub async fn insert(connection: &impl ConnectionTrait, user: &User) -> Result<(), Error> {
    Entity::insert(row(user)).exec_without_returning(connection).await?;
    Ok(())
}

/// Inserts a user with only an id, unless the id exists.
pub async fn ensure(connection: &impl ConnectionTrait, id: &UserId, now: Timestamp) -> Result<(), Error> {
    let user = User { id: id.clone(), name: None, email: None, created_at: now };
    let unless_there = OnConflict::column(Column::Id).do_nothing().to_owned();
    Entity::insert(row(&user)).on_conflict(unless_there).exec_without_returning(connection).await?;
    Ok(())
}

/// Returns whether a user with this id exists.
pub async fn exists(connection: &impl ConnectionTrait, id: &UserId) -> Result<bool, Error> {
    let found: Option<i32> =
        Entity::find_by_id(id.as_str()).select_only().expr(Expr::value(1)).into_tuple().one(connection).await?;
    Ok(found.is_some())
}

/// Returns the user with this id.
pub async fn find(connection: &impl ConnectionTrait, id: &UserId) -> Result<Option<User>, Error> {
    Ok(Entity::find_by_id(id.as_str()).one(connection).await?.map(User::from))
}

/// Returns users by id, one more than the page size if there are more.
pub async fn list(connection: &impl ConnectionTrait, query: &UserQuery) -> Result<Vec<User>, Error> {
    let mut select = Entity::find().order_by_asc(Column::Id).limit(query.limit + 1);
    if let Some(after) = &query.after {
        select = select.filter(Column::Id.gt(after.as_str()));
    }
    Ok(select.all(connection).await?.into_iter().map(User::from).collect())
}

fn row(user: &User) -> ActiveModel {
    ActiveModel {
        id: Set(user.id.as_str().to_owned()),
        name: Set(user.name.clone()),
        email: Set(user.email.clone()),
        created_at: Set(user.created_at.0),
    }
}

impl From<Model> for User {
    fn from(row: Model) -> Self {
        Self { id: UserId::stored(row.id), name: row.name, email: row.email, created_at: Timestamp(row.created_at) }
    }
}
