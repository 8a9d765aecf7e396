//! The table of product events, read in the order in which their transactions became visible.
//!
//! A reader that stores only its last position therefore misses no event and reads none twice.
//!
//! PostgreSQL assigns numbers before transactions end: event 8 may be visible while 7 is not. So on PostgreSQL a
//! position starts with the transaction id, and a row is settled once every older transaction that may still write
//! events has ended. Rows that are not settled are held back. SQLite has one writer at a time, so the number alone
//! gives the order.
//!
//! A transaction may still write events only if it has written to one of [`TABLES`]. Other transactions of the server,
//! in this database or another one, hold nothing back, however long they stay open.

pub mod deliveries;
pub mod webhooks;

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Value};

use crate::{
    clock::Timestamp,
    db::{Error, lengths::parts, statement::query},
    domain::{Event, EventId, EventKind, EventPosition, ImageId, NewEvent, ProductId, UserId},
};

/// Number of events deleted together, and minimum number kept at any age.
pub const DELETE_BATCH_ROWS: i64 = 500;

/// Tables whose writers may still write events: all tables except the list of migrations.
/// PostgreSQL assigns a transaction id to a `pm` transaction when it writes to one of them or locks a row.
pub const TABLES: [&str; 17] = [
    "api_keys",
    "cache_invalidation",
    "clock_anchors",
    "events",
    "idempotency_keys",
    "images",
    "installation",
    "job_attempts",
    "jobs",
    "lost_claims",
    "product_words",
    "products",
    "renditions",
    "users",
    "variants",
    "webhook_deliveries",
    "webhooks",
];

/// Events in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// The events, without those of kinds that only a newer version knows.
    pub events: Vec<Event>,
    /// The position of the last row, or the start position if the page is empty.
    pub last: EventPosition,
    /// Whether the page is full, so more events may be available.
    pub full: bool,
    /// Whether events are held back until an older transaction ends.
    pub held_back: bool,
}

/// Stores events and returns their ids in the same order.
pub async fn insert(connection: &impl ConnectionTrait, events: &[NewEvent]) -> Result<Vec<EventId>, Error> {
    const COLUMNS: usize = 6;
    let mut ids = Vec::with_capacity(events.len());
    for some in parts(events) {
        let mut values = Vec::with_capacity(some.len() * COLUMNS);
        let mut tuples = Vec::with_capacity(some.len());
        for event in some {
            let first = values.len();
            let places: Vec<_> = (1..=COLUMNS).map(|place| format!("${}", first + place)).collect();
            tuples.push(format!("({})", places.join(", ")));
            values.extend(values_of(event)?);
        }
        let sql = format!(
            "INSERT INTO events (product_id, image_id, user_id, kind, data, created_at) VALUES {} RETURNING id",
            tuples.join(", ")
        );
        let rows = query(connection, &sql, values).await?;
        let stored = rows.iter().map(|row| row.try_get("", "id").map(EventId));
        ids.extend(stored.collect::<Result<Vec<_>, _>>()?);
    }
    // Ids follow the order of the statement, but rows may be returned in another order.
    ids.sort_unstable();
    Ok(ids)
}

/// Returns up to `limit` settled events after `after`.
pub async fn page(connection: &impl ConnectionTrait, after: EventPosition, limit: u64) -> Result<EventPage, Error> {
    const SQLITE: &str = "SELECT id, 0 AS transaction_id, 1 AS settled, product_id, image_id, user_id, kind, data
        FROM events WHERE id > $1 ORDER BY id LIMIT $2";
    let postgres = || {
        format!(
            "SELECT id, tx::text::bigint AS transaction_id, ({})::int::bigint AS settled, product_id, image_id, user_id, kind, data
             FROM events WHERE (tx, id) > ($2::text::xid8, $1) ORDER BY tx, id LIMIT $3",
            settled()
        )
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = values_at(after, connection).into_iter().chain([limit.into()]).collect();
    let sql = if is_postgres(connection) { postgres() } else { SQLITE.to_owned() };
    let rows = query(connection, &sql, values).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count >= limit);
    let mut page = EventPage { events: Vec::with_capacity(rows.len()), last: after, full, held_back: false };
    for row in &rows {
        if row.try_get::<i64>("", "settled")? == 0 {
            (page.full, page.held_back) = (false, true);
            break;
        }
        page.last = position_of(row)?;
        page.events.extend(event_of(row, page.last)?);
    }
    Ok(page)
}

/// Returns the position of the newest settled event, or [`EventPosition::START`].
pub async fn newest(connection: &impl ConnectionTrait) -> Result<EventPosition, Error> {
    const SQLITE: &str = "SELECT id, 0 AS transaction_id FROM events ORDER BY id DESC LIMIT 1";
    let postgres = || {
        format!(
            "SELECT id, tx::text::bigint AS transaction_id FROM events WHERE {} ORDER BY tx DESC, id DESC LIMIT 1",
            settled()
        )
    };
    let sql = if is_postgres(connection) { postgres() } else { SQLITE.to_owned() };
    let rows = query(connection, &sql, Vec::new()).await?;
    rows.first().map_or(Ok(EventPosition::START), position_of)
}

/// Returns the position of the oldest stored event.
pub async fn oldest(connection: &impl ConnectionTrait) -> Result<Option<EventPosition>, Error> {
    Ok(nth_oldest(connection, 0).await?.map(|(position, _)| position))
}

/// Deletes the oldest [`DELETE_BATCH_ROWS`] events and returns their number.
/// It does so only if the next event is from before `before` as well. The remaining events have no gaps.
pub async fn delete_expired(connection: &impl ConnectionTrait, before: Timestamp) -> Result<u64, Error> {
    const SQLITE: &str = "DELETE FROM events WHERE id < $1 RETURNING id";
    const POSTGRES: &str = "DELETE FROM events WHERE (tx, id) < ($2::text::xid8, $1) RETURNING id";
    let Some(first_kept) = outdated(connection, before).await? else { return Ok(0) };
    let sql = either(connection, SQLITE, POSTGRES);
    Ok(query(connection, sql, values_at(first_kept, connection)).await?.len() as u64)
}

/// Returns the last event that [`delete_expired`] would delete now, if there are enough.
pub async fn outdated(connection: &impl ConnectionTrait, before: Timestamp) -> Result<Option<EventPosition>, Error> {
    let next = nth_oldest(connection, DELETE_BATCH_ROWS).await?;
    Ok(next.filter(|(_, created_at)| *created_at < before).map(|(position, _)| position))
}

async fn nth_oldest(
    connection: &impl ConnectionTrait,
    offset: i64,
) -> Result<Option<(EventPosition, Timestamp)>, Error> {
    const SQLITE: &str = "SELECT id, 0 AS transaction_id, created_at FROM events ORDER BY id LIMIT 1 OFFSET $1";
    const POSTGRES: &str = "SELECT id, tx::text::bigint AS transaction_id, created_at FROM events
        ORDER BY tx, id LIMIT 1 OFFSET $1";
    let rows = query(connection, either(connection, SQLITE, POSTGRES), vec![offset.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((position_of(row)?, Timestamp(row.try_get("", "created_at")?))))
}

/// Returns the PostgreSQL condition for a settled row of `events`.
///
/// The statement's snapshot lists the running transactions. One of them is ignored only if the server's list of locks
/// contains it and shows that it has written to no table of [`TABLES`]. A writer locks its table before it gets its
/// transaction id and keeps the lock until its writes are visible. A transaction that ends while the list is read may
/// appear with its id and without that lock, since locks are released one by one. So a transaction is ignored only if
/// it still runs after the list was read (`CASE` fixes that order). A transaction that has ended since the snapshot
/// holds later ones back until the next read. The list is read once, and only if a row is younger than the oldest
/// running transaction.
fn settled() -> String {
    let tables = TABLES.map(|table| format!("'{table}'")).join(", ");
    format!(
        "CASE WHEN tx < pg_snapshot_xmin(pg_current_snapshot()) THEN true ELSE tx < (
            WITH held AS MATERIALIZED (
                SELECT locktype, database, relation, transactionid, virtualtransaction, mode FROM pg_locks WHERE granted
            ), passed_over AS (
                SELECT transactionid FROM held AS own
                WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND NOT EXISTS (
                    SELECT FROM held AS written
                    WHERE written.virtualtransaction = own.virtualtransaction AND written.locktype = 'relation'
                    AND written.mode IN ('RowShareLock', 'RowExclusiveLock')
                    AND written.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND written.relation IN (SELECT oid FROM pg_class WHERE relname IN ({tables}) AND relnamespace =
                        (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)))
            )
            SELECT coalesce(
                (SELECT running FROM pg_snapshot_xip(pg_current_snapshot()) AS running
                 WHERE CASE WHEN EXISTS (SELECT FROM passed_over WHERE transactionid = running::xid)
                     THEN pg_xact_status(running) <> 'in progress' ELSE true END
                 ORDER BY running LIMIT 1),
                pg_snapshot_xmax(pg_current_snapshot()))
        ) END"
    )
}

fn either(connection: &impl ConnectionTrait, sqlite: &'static str, postgres: &'static str) -> &'static str {
    if is_postgres(connection) { postgres } else { sqlite }
}

fn is_postgres(connection: &impl ConnectionTrait) -> bool {
    connection.get_database_backend() == DbBackend::Postgres
}

/// Returns a position as the first values of a statement: the number and, on PostgreSQL, the transaction.
fn values_at(position: EventPosition, connection: &impl ConnectionTrait) -> Vec<Value> {
    let tx = (connection.get_database_backend() == DbBackend::Postgres).then(|| position.tx.to_string().into());
    std::iter::once(position.id.0.into()).chain(tx).collect()
}

fn position_of(row: &QueryResult) -> Result<EventPosition, Error> {
    Ok(EventPosition { tx: row.try_get("", "transaction_id")?, id: EventId(row.try_get("", "id")?) })
}

fn event_of(row: &QueryResult, position: EventPosition) -> Result<Option<Event>, Error> {
    let Some(kind) = EventKind::parse(&row.try_get::<String>("", "kind")?) else { return Ok(None) };
    Ok(Some(Event {
        position,
        kind,
        product_id: ProductId(row.try_get("", "product_id")?),
        user_id: UserId::stored(row.try_get("", "user_id")?),
        data: row.try_get("", "data")?,
    }))
}

fn values_of(event: &NewEvent) -> Result<[Value; 6], Error> {
    let data = serde_json::to_string(&event.data).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok([
        event.product_id.0.into(),
        event.image_id.map(|ImageId(id)| id).into(),
        event.user_id.as_str().into(),
        event.kind.as_str().into(),
        data.into(),
        event.created_at.0.into(),
    ])
}
