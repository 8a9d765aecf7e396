//! The table of webhook deliveries. Like jobs, they are claimed and settled by fenced statements.

use std::time::Duration;

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Value,
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::webhook_delivery::{ActiveModel, Column, Entity, Model},
        events::webhooks::{self, Breaker},
        lengths::{padded, parts},
        statement::query,
    },
    domain::{ClaimedDelivery, Delivery, DeliveryId, DeliveryQuery, DeliveryState, EventKind, WebhookId},
};

/// Duration of a lease, which is not extended: longer than any attempt to deliver.
pub const LEASE: Duration = Duration::from_secs(60);

/// A message for every webhook that subscribes to its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id of the message.
    pub id: String,
    /// The kind of event.
    pub kind: EventKind,
    /// The JSON body.
    pub body: String,
}

/// Result of the last attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The new state of the delivery.
    pub state: DeliveryState,
    /// The time of the next attempt, if there is one.
    pub run_at: Timestamp,
    /// The HTTP status of the response.
    pub response_status: Option<u16>,
    /// Why the attempt failed.
    pub error: Option<String>,
}

/// Queues deliveries to all subscribed webhooks, and returns their number.
pub async fn enqueue(connection: &impl ConnectionTrait, messages: &[Message], now: Timestamp) -> Result<u64, Error> {
    // The lock waits for a webhook that is being deleted and then skips it. Otherwise the transaction would fail.
    let held = if is_postgres(connection) { " FOR KEY SHARE OF webhooks" } else { "" };
    let mut queued = 0;
    for some in parts(messages) {
        let mut values: Vec<Value> = vec![now.0.into()];
        let mut tuples = Vec::with_capacity(some.len());
        for message in some {
            let first = values.len() + 1;
            tuples.push(format!("(${first}, ${}, ${})", first + 1, first + 2));
            values.extend([message.id.as_str().into(), message.kind.as_str().into(), message.body.as_str().into()]);
        }
        let sql = format!(
            "INSERT INTO webhook_deliveries (webhook_id, message_id, kind, body, state, attempt, run_at, created_at, updated_at)
             SELECT webhooks.id, column1, column2, column3, 'queued', 0, $1, $1, $1
             FROM webhooks CROSS JOIN (VALUES {}) AS messages
             WHERE enabled = 1 AND (types = '' OR ',' || types || ',' LIKE '%,' || column2 || ',%'){held}
             RETURNING id",
            tuples.join(", ")
        );
        queued += query(connection, &sql, values).await?.len() as u64;
    }
    Ok(queued)
}

/// Returns the webhooks that can take a delivery now.
/// They have a due message, fewer than `most` deliveries in flight, and no pause.
pub async fn with_work(connection: &impl ConnectionTrait, most: u32, now: Timestamp) -> Result<Vec<WebhookId>, Error> {
    let sql = "SELECT id FROM webhooks WHERE enabled = 1 AND (paused_until IS NULL OR paused_until <= $1)
        AND EXISTS (SELECT 1 FROM webhook_deliveries d
            WHERE d.webhook_id = webhooks.id AND d.state = 'queued' AND d.run_at <= $1)
        AND (SELECT count(*) FROM webhook_deliveries d
            WHERE d.webhook_id = webhooks.id AND d.state = 'running') < $2
        ORDER BY id";
    let rows = query(connection, sql, vec![now.0.into(), i64::from(most).into()]).await?;
    rows.iter().map(|row| Ok(WebhookId(row.try_get("", "id")?))).collect()
}

/// Claims the oldest due delivery of an enabled webhook.
/// The webhook must have fewer than `most` deliveries in flight.
/// A webhook that `breaker` has paused gets one attempt when its pause ends, and is paused again at once, so only one
/// process makes that attempt.
pub async fn claim(
    connection: &impl ConnectionTrait,
    webhook: WebhookId,
    (most, breaker): (u32, Breaker),
    (lease_token, lease_until): (&str, Timestamp),
    now: Timestamp,
) -> Result<Option<ClaimedDelivery>, Error> {
    // The lock serializes claims per webhook, so that each claim sees the earlier ones when it counts.
    let held = if is_postgres(connection) { " FOR NO KEY UPDATE SKIP LOCKED" } else { "" };
    let ready = format!(
        "SELECT failures FROM webhooks
         WHERE id = $1 AND enabled = 1 AND (paused_until IS NULL OR paused_until <= $2){held}"
    );
    let ready = query(connection, &ready, vec![webhook.0.into(), now.0.into()]).await?;
    let Some(ready) = ready.first() else { return Ok(None) };
    let failures: i64 = ready.try_get("", "failures")?;
    let skip = if is_postgres(connection) { " FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "UPDATE webhook_deliveries
         SET state = 'running', attempt = attempt + 1, lease_token = $1, lease_until = $2, updated_at = $3
         WHERE id = (SELECT id FROM webhook_deliveries WHERE webhook_id = $4 AND state = 'queued' AND run_at <= $3
             ORDER BY run_at, id LIMIT 1{skip})
             AND (SELECT count(*) FROM webhook_deliveries WHERE webhook_id = $4 AND state = 'running') < $5
         RETURNING id, message_id, body, attempt,
             (SELECT url FROM webhooks WHERE webhooks.id = webhook_id) AS url,
             (SELECT secret FROM webhooks WHERE webhooks.id = webhook_id) AS secret"
    );
    let values = vec![lease_token.into(), lease_until.0.into(), now.0.into(), webhook.0.into(), i64::from(most).into()];
    let rows = query(connection, &sql, values).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if failures >= i64::from(breaker.failures) {
        webhooks::pause(connection, webhook, now.plus(breaker.pause)).await?;
    }
    Ok(Some(ClaimedDelivery {
        id: DeliveryId(row.try_get("", "id")?),
        webhook_id: webhook,
        url: row.try_get("", "url")?,
        secret: row.try_get::<String>("", "secret")?.into(),
        message_id: row.try_get("", "message_id")?,
        body: row.try_get("", "body")?,
        attempt: row.try_get("", "attempt")?,
        lease_token: lease_token.to_owned(),
        claimed_at: now,
    }))
}

/// Ends an attempt; `false` if the caller lost the lease or the webhook is gone.
pub async fn settle(
    connection: &impl ConnectionTrait,
    claimed: &ClaimedDelivery,
    ending: &Ending,
    now: Timestamp,
) -> Result<bool, Error> {
    let row = ActiveModel {
        state: Set(ending.state.as_str().to_owned()),
        run_at: Set(ending.run_at.0),
        lease_token: Set(None),
        lease_until: Set(None),
        response_status: Set(ending.response_status.map(i32::from)),
        error_message: Set(ending.error.clone()),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    };
    let held = Entity::update_many().set(row).filter(Column::Id.eq(claimed.id.0));
    let held = held.filter(Column::State.eq(DeliveryState::Running.as_str()));
    let settled = held.filter(Column::LeaseToken.eq(claimed.lease_token.as_str())).exec(connection).await?;
    Ok(settled.rows_affected > 0)
}

/// Requeues a delivery as if it had not been claimed, and stores the reason.
pub async fn withhold(
    connection: &impl ConnectionTrait,
    claimed: &ClaimedDelivery,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let row = ActiveModel {
        state: Set(DeliveryState::Queued.as_str().to_owned()),
        attempt: Set(claimed.attempt.saturating_sub(1)),
        lease_token: Set(None),
        lease_until: Set(None),
        error_message: Set(Some(reason.to_owned())),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    };
    let held = Entity::update_many().set(row).filter(Column::Id.eq(claimed.id.0));
    held.filter(Column::LeaseToken.eq(claimed.lease_token.as_str())).exec(connection).await?;
    Ok(())
}

/// Requeues a delivery of this webhook as if it had never been attempted.
/// Returns `None` if it does not exist, `false` if it is queued or in flight.
pub async fn requeue(
    connection: &impl ConnectionTrait,
    webhook: WebhookId,
    id: DeliveryId,
    now: Timestamp,
) -> Result<Option<bool>, Error> {
    let one = Entity::find_by_id(id.0).filter(Column::WebhookId.eq(webhook.0));
    let Some(found) = one.one(connection).await? else { return Ok(None) };
    let row = ActiveModel {
        state: Set(DeliveryState::Queued.as_str().to_owned()),
        attempt: Set(0),
        run_at: Set(now.0),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    };
    let over = [DeliveryState::Done, DeliveryState::Dead].map(DeliveryState::as_str);
    let queued = Entity::update_many().set(row).filter(Column::Id.eq(found.id)).filter(Column::State.is_in(over));
    Ok(Some(queued.exec(connection).await?.rows_affected > 0))
}

/// Returns a page of a webhook's deliveries, newest first, and whether there are more.
pub async fn list(
    connection: &impl ConnectionTrait,
    webhook: WebhookId,
    page: DeliveryQuery,
) -> Result<(Vec<Delivery>, bool), Error> {
    let mut found = Entity::find().filter(Column::WebhookId.eq(webhook.0));
    if let Some(before) = page.before {
        found = found.filter(Column::Id.lt(before.0));
    }
    let mut rows = found.order_by_desc(Column::Id).limit(page.limit + 1).all(connection).await?;
    let more = rows.len() as u64 > page.limit;
    rows.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
    Ok((rows.into_iter().map(read).collect::<Result<_, _>>()?, more))
}

/// Deletes up to `limit` deliveries that ended before `before`, and returns their number.
pub async fn delete_expired(connection: &impl ConnectionTrait, before: Timestamp, limit: u64) -> Result<u64, Error> {
    let ids = over(connection, before, limit).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    Ok(Entity::delete_many().filter(Column::Id.is_in(padded(ids))).exec(connection).await?.rows_affected)
}

/// Returns whether a delivery ended before `before`.
pub async fn any_over(connection: &impl ConnectionTrait, before: Timestamp) -> Result<bool, Error> {
    Ok(!over(connection, before, 1).await?.is_empty())
}

/// Deletes up to `limit` deliveries of a webhook, and returns their number.
pub async fn remove(connection: &impl ConnectionTrait, webhook: WebhookId, limit: u64) -> Result<u64, Error> {
    let ids = Entity::find().select_only().column(Column::Id).filter(Column::WebhookId.eq(webhook.0));
    let ids: Vec<i64> = ids.order_by_asc(Column::Id).limit(limit).into_tuple().all(connection).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    Ok(Entity::delete_many().filter(Column::Id.is_in(padded(ids))).exec(connection).await?.rows_affected)
}

fn is_postgres(connection: &impl ConnectionTrait) -> bool {
    connection.get_database_backend() == DbBackend::Postgres
}

async fn over(connection: &impl ConnectionTrait, before: Timestamp, limit: u64) -> Result<Vec<i64>, Error> {
    let sql = "SELECT id FROM webhook_deliveries WHERE state IN ('done', 'dead') AND updated_at < $1
        ORDER BY updated_at, id LIMIT $2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(connection, sql, vec![before.0.into(), limit.into()]).await?;
    rows.iter().map(|row| Ok(row.try_get("", "id")?)).collect()
}

fn read(row: Model) -> Result<Delivery, Error> {
    let state = DeliveryState::parse(&row.state)
        .ok_or_else(|| Error::Corrupt(format!("delivery {} has the state {}", row.id, row.state)))?;
    Ok(Delivery {
        id: DeliveryId(row.id),
        kind: row.kind,
        message_id: row.message_id,
        state,
        attempts: row.attempt,
        next_attempt_at: (state == DeliveryState::Queued).then_some(Timestamp(row.run_at)),
        response_status: row.response_status.and_then(|status| u16::try_from(status).ok()),
        error: row.error_message,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}
