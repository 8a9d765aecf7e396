//! Restores the intact rows of damaged tables.
//!
//! Rows whose parents are lost are dropped. A lost user is restored with only its id, so that its products stay.

use serde_json::Value;

use super::Error;
use crate::{
    clock::Timestamp,
    db::{Write, accounts::users, blobs::losses, maintenance::transfer::Row},
    domain::UserId,
};

/// The foreign key of each table: its column and the parent table.
const PARENTS: [(&str, &str, &str); 7] = [
    ("api_keys", "user_id", USERS),
    ("products", "user_id", USERS),
    ("images", "product_id", "products"),
    ("renditions", "image_id", "images"),
    ("variants", "image_id", "images"),
    ("jobs", "image_id", "images"),
    ("job_attempts", "job_id", "jobs"),
];
const USERS: &str = "users";

/// Returns the rows whose parents exist.
pub(super) async fn connected(write: &Write, table: &str, rows: Vec<Row>, now: Timestamp) -> Result<Vec<Row>, Error> {
    let Some((_, column, parent)) = PARENTS.iter().find(|(child, ..)| *child == table) else { return Ok(rows) };
    let ids: Vec<_> = rows.iter().filter_map(|row| row.get(*column)).collect();
    let present = losses::present(&**write, parent, &ids).await?;
    let is_there = |row: &Row| row.get(*column).is_some_and(|id| present.contains(&text(id)));
    if *parent == USERS {
        for row in rows.iter().filter(|row| !is_there(row)) {
            if let Some(id) = row.get(*column).and_then(Value::as_str) {
                users::ensure(&**write, &UserId::stored(id.to_owned()), now).await?;
            }
        }
        return Ok(rows);
    }
    Ok(rows.into_iter().filter(is_there).collect())
}

fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}
