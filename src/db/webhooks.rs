//! Rows of webhooks.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait as _, QueryFilter, QueryOrder,
    sea_query::Expr,
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::webhook::{ActiveModel, Column, Entity, Model},
    },
    domain::{EventKind, NewWebhook, Webhook, WebhookId},
};

/// Stores a webhook that is told from now on.
///
/// # Errors
/// If the database does not answer.
pub async fn insert(
    connection: &impl ConnectionTrait,
    new: &NewWebhook,
    secret: &str,
    now: Timestamp,
) -> Result<Webhook, Error> {
    let kinds: Vec<_> = new.kinds.iter().map(|kind| kind.as_str()).collect();
    let row = ActiveModel {
        id: NotSet,
        url: Set(new.url.clone()),
        types: Set(kinds.join(",")),
        secret: Set(secret.to_owned()),
        enabled: Set(1),
        disabled_reason: Set(None),
        failing_since: Set(None),
        created_at: Set(now.0),
    };
    Ok(read(Entity::insert(row).exec_with_returning(connection).await?))
}

/// How many there are.
///
/// # Errors
/// If the database does not answer.
pub async fn count(connection: &impl ConnectionTrait) -> Result<u64, Error> {
    Ok(Entity::find().count(connection).await?)
}

/// Every webhook by number; there are never many.
///
/// # Errors
/// If the database does not answer.
pub async fn all(connection: &impl ConnectionTrait) -> Result<Vec<Webhook>, Error> {
    Ok(Entity::find().order_by_asc(Column::Id).all(connection).await?.into_iter().map(read).collect())
}

/// One webhook.
///
/// # Errors
/// If the database does not answer.
pub async fn find(connection: &impl ConnectionTrait, id: WebhookId) -> Result<Option<Webhook>, Error> {
    Ok(Entity::find_by_id(id.0).one(connection).await?.map(read))
}

/// Removes a webhook with its deliveries; `false` if there is none.
///
/// # Errors
/// If the database does not answer.
pub async fn delete(connection: &impl ConnectionTrait, id: WebhookId) -> Result<bool, Error> {
    Ok(Entity::delete_by_id(id.0).exec(connection).await?.rows_affected > 0)
}

/// Lets a webhook be told again, as if it had never failed; `false` if there is none.
///
/// # Errors
/// If the database does not answer.
pub async fn enable(connection: &impl ConnectionTrait, id: WebhookId) -> Result<bool, Error> {
    let reset =
        ActiveModel { enabled: Set(1), disabled_reason: Set(None), failing_since: Set(None), ..ActiveModel::default() };
    let updated = Entity::update_many().set(reset).filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(updated.rows_affected > 0)
}

/// Notes that a webhook took a message.
///
/// # Errors
/// If the database does not answer.
pub async fn note_success(connection: &impl ConnectionTrait, id: WebhookId) -> Result<(), Error> {
    let well = Entity::update_many().col_expr(Column::FailingSince, Expr::value(Option::<i64>::None));
    well.filter(Column::Id.eq(id.0)).filter(Column::FailingSince.is_not_null()).exec(connection).await?;
    Ok(())
}

/// Notes that a webhook did not take a message; answers since when it has taken none.
///
/// # Errors
/// If the database does not answer.
pub async fn note_failure(
    connection: &impl ConnectionTrait,
    id: WebhookId,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let failing = Entity::update_many().col_expr(Column::FailingSince, Expr::value(now.0));
    failing.filter(Column::Id.eq(id.0)).filter(Column::FailingSince.is_null()).exec(connection).await?;
    Ok(find(connection, id).await?.and_then(|webhook| webhook.failing_since))
}

/// Tells a webhook nothing any more until somebody enables it.
///
/// # Errors
/// If the database does not answer.
pub async fn disable(connection: &impl ConnectionTrait, id: WebhookId, reason: &str) -> Result<(), Error> {
    let disabled =
        ActiveModel { enabled: Set(0), disabled_reason: Set(Some(reason.to_owned())), ..ActiveModel::default() };
    Entity::update_many().set(disabled).filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(())
}

fn read(row: Model) -> Webhook {
    let reason = row.disabled_reason.unwrap_or_default();
    Webhook {
        id: WebhookId(row.id),
        url: row.url,
        kinds: row.types.split(',').filter_map(EventKind::parse).collect(),
        disabled: (row.enabled == 0).then_some(reason),
        failing_since: row.failing_since.map(Timestamp),
        created_at: Timestamp(row.created_at),
    }
}
