//! The table of webhooks.

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

/// Inserts an enabled webhook; [`replace_secret`] adds its secret.
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

/// Returns a webhook and its stored secret.
pub async fn with_secret(connection: &impl ConnectionTrait, id: WebhookId) -> Result<Option<(Webhook, String)>, Error> {
    let row = Entity::find_by_id(id.0).one(connection).await?;
    Ok(row.map(|row| {
        let secret = row.secret.clone();
        (read(row), secret)
    }))
}

/// Returns up to `limit` webhooks after `after` by id, with their stored secrets.
pub async fn secrets_after(
    connection: &impl ConnectionTrait,
    after: WebhookId,
    limit: u64,
) -> Result<Vec<(WebhookId, String)>, Error> {
    let found = Entity::find().select_only().columns([Column::Id, Column::Secret]).filter(Column::Id.gt(after.0));
    let rows: Vec<(i64, String)> = found.order_by_asc(Column::Id).limit(limit).into_tuple().all(connection).await?;
    Ok(rows.into_iter().map(|(id, secret)| (WebhookId(id), secret)).collect())
}

/// Replaces the stored secret `old` by `new`; `false` if it has changed.
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

/// Returns the number of webhooks.
pub async fn count(connection: &impl ConnectionTrait) -> Result<u64, Error> {
    Ok(Entity::find().count(connection).await?)
}

/// Returns all webhooks by id; their number is limited.
pub async fn all(connection: &impl ConnectionTrait) -> Result<Vec<Webhook>, Error> {
    Ok(Entity::find().order_by_asc(Column::Id).all(connection).await?.into_iter().map(read).collect())
}

/// Returns one webhook.
pub async fn find(connection: &impl ConnectionTrait, id: WebhookId) -> Result<Option<Webhook>, Error> {
    Ok(Entity::find_by_id(id.0).one(connection).await?.map(read))
}

/// Deletes a webhook and its deliveries; `false` if it does not exist.
pub async fn delete(connection: &impl ConnectionTrait, id: WebhookId) -> Result<bool, Error> {
    Ok(Entity::delete_by_id(id.0).exec(connection).await?.rows_affected > 0)
}

/// Enables a webhook and resets its failures; `false` if it does not exist.
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

/// Records a successful delivery, which ends the webhook's pause.
/// Returns the number of consecutive failures before it.
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

/// Circuit breaker: when and how long a failing webhook is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Consecutive failures that open the breaker.
    pub failures: u32,
    /// Duration of the pause, and interval between single attempts until one succeeds.
    pub pause: Duration,
}

/// State of a webhook after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The time of the first failure since the last success.
    pub since: Timestamp,
    /// Consecutive failed attempts.
    pub failures: i64,
}

/// Records a failed delivery and pauses the webhook by `breaker`.
/// Returns `None` if the webhook does not exist.
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

/// Pauses a webhook until `until`.
pub async fn pause(connection: &impl ConnectionTrait, id: WebhookId, until: Timestamp) -> Result<(), Error> {
    let paused = ActiveModel { paused_until: Set(Some(until.0)), ..ActiveModel::default() };
    Entity::update_many().set(paused).filter(Column::Id.eq(id.0)).exec(connection).await?;
    Ok(())
}

/// Disables a webhook until an operator enables it.
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
