//! Events of products, written in the transaction of the change, read in commit order, and kept for a day.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(Debug)]
pub(crate) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0012_events"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let events = "CREATE TABLE events (
            id {id},{tx}
            product_id {int} NOT NULL,
            image_id {int},
            user_id {text} NOT NULL,
            kind TEXT NOT NULL,
            data TEXT NOT NULL,
            created_at {int} NOT NULL
        )";
        // PostgreSQL assigns ids in another order than transactions commit, so each event stores its transaction id.
        // SQLite has one writer and assigns ids in commit order.
        if manager.get_database_backend() == DbBackend::Postgres {
            let tx = "\n            tx XID8 NOT NULL DEFAULT pg_current_xact_id(),";
            let index = "CREATE INDEX events_by_commit ON events (tx, id)";
            return crate::run(manager, &[&events.replace("{tx}", tx), index]).await;
        }
        crate::run(manager, &[&events.replace("{tx}", "")]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &["DROP TABLE events"]).await
    }
}
