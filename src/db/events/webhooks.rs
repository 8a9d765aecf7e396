//! Rows of webhooks.

use std::time::Duration;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait as _, QueryFilter, QueryOrder, QuerySelect,
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::webhook::{ActiveModel, Column, Entity, Model},
        statement::query,
    },
    domain::{EventKind, NewWebhook, Webhook, WebhookId},
};

/// Stores a webhook that is told from now on; its secret follows by [`replace_secret`].
///
/// # Errors
/// If the database does not answer.
pub async fn insert(connection: &impl ConnectionTrait, new: &NewWebhook, now: Timestamp) -> Result<Webhook, Error> {
    let kinds: Vec<_> = new.kinds.iter().map(|kind| kind.as_str()).collect();
    let row = ActiveModel {
        id: NotSet,
        url: Set(new.url.clone()),
        types: Set(kinds.join(",")),
        secret: Set(String::new()),
        enabled: Set(1),
        disabled_reason: Set(None),
        failing_since: Set(None),
        created_at: Set(now.0),
        failures: Set(0),
        paused_until: Set(None),
    };
    Ok(read(Entity::insert(row).exec_with_returning(connection).await?))
}

/// The webhook with this number, and its secret as it is stored.
///
/// # Errors
/// If the database does not answer.
pub async fn with_secret(connection: &impl ConnectionTrait, id: WebhookId) -> Result<Option<(Webhook, String)>, Error> {
    let row = Entity::find_by_id(id.0).one(connection).await?;
    Ok(row.map(|row| {
        let secret = row.secret.clone();
        (read(row), secret)
    }))
}

/// Returns up to `limit` webhooks after `after` by number, each with its secret as it is stored.
///
/// # Errors
/// If the database does not answer.
pub async fn secrets_after(
    connection: &impl ConnectionTrait,
    after: WebhookId,
    limit: u64,
) -> Result<Vec<(WebhookId, String)>, Error> {
    let found = Entity::find().select_only().columns([Column::Id, Column::Secret]).filter(Column::Id.gt(after.0));
    let rows: Vec<(i64, String)> = found.order_by_asc(Column::Id).limit(limit).into_tuple().all(connection).await?;
    Ok(rows.into_iter().map(|(id, secret)| (WebhookId(id), secret)).collect())
}

/// Stores `new` in the place of the stored secret `old`; `false` if another one stands there by now.
///
/// # Errors
/// If the database does not answer.
pub async fn replace_secret(
    connection: &impl ConnectionTrait,
    id: WebhookId,
    old: &str,
    new: &str,
) -> Result<bool, Error> {
    let row = ActiveModel { secret: Set(new.to_owned()), ..ActiveModel::default() };
    let same = Entity::update_many().set(row).filter(Column::Id.eq(id.0)).filter(Column::Secret.eq(old));
    Ok(same.exec(connection).await?.rows_affected > 0)
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
    let reset = ActiveModel {
        enabled: Set(1),
        disabled_reason: Set(None),
        failing_since: Set(None),
        failures: Set(0),
        paused_until: Set(None),
        ..ActiveModel::default()
    };
    let updated = Entity::update_many().set(reset).filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(updated.rows_affected > 0)
}

/// Notes that a webhook took a message, which ends its pause; answers how many attempts had failed in a row before it.
///
/// # Errors
/// If the database does not answer.
pub async fn note_success(connection: &impl ConnectionTrait, id: WebhookId) -> Result<i64, Error> {
    let held = if is_postgres(connection) { " FOR NO KEY UPDATE" } else { "" };
    let sql = format!(
        "SELECT failures FROM webhooks
         WHERE id = $1 AND (failing_since IS NOT NULL OR failures > 0 OR paused_until IS NOT NULL){held}"
    );
    let rows = query(connection, &sql, vec![id.0.into()]).await?;
    let Some(row) = rows.first() else { return Ok(0) };
    let well =
        ActiveModel { failing_since: Set(None), failures: Set(0), paused_until: Set(None), ..ActiveModel::default() };
    Entity::update_many().set(well).filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(row.try_get("", "failures")?)
}

/// When a webhook that keeps failing is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failed attempts in a row that open it.
    pub failures: u32,
    /// How long no attempt is made then, and between two attempts until one succeeds.
    pub pause: Duration,
}

/// What is known of a webhook after an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since when no message was taken.
    pub since: Timestamp,
    /// Failed attempts in a row.
    pub failures: i64,
}

/// Notes that a webhook did not take a message, and pauses it by `breaker`; `None` if there is no such webhook.
///
/// # Errors
/// If the database does not answer.
pub async fn note_failure(
    connection: &impl ConnectionTrait,
    id: WebhookId,
    breaker: Breaker,
    now: Timestamp,
) -> Result<Option<Failing>, Error> {
    let sql = "UPDATE webhooks SET failing_since = COALESCE(failing_since, $1), failures = failures + 1,
            paused_until = CASE WHEN failures + 1 >= $2 THEN $3 ELSE paused_until END
        WHERE id = $4 RETURNING failing_since, failures";
    let until = now.plus(breaker.pause);
    let values = vec![now.0.into(), i64::from(breaker.failures).into(), until.0.into(), id.0.into()];
    let rows = query(connection, sql, values).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Failing { since: Timestamp(row.try_get("", "failing_since")?), failures: row.try_get("", "failures")? }))
}

/// Makes no attempt at a webhook before `until`.
///
/// # Errors
/// If the database does not answer.
pub async fn pause(connection: &impl ConnectionTrait, id: WebhookId, until: Timestamp) -> Result<(), Error> {
    let paused = ActiveModel { paused_until: Set(Some(until.0)), ..ActiveModel::default() };
    Entity::update_many().set(paused).filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(())
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

fn is_postgres(connection: &impl ConnectionTrait) -> bool {
    connection.get_database_backend() == DbBackend::Postgres
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
