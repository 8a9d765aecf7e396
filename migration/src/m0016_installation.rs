//! The installation: one row with its id, its blob store, the programs that may use the schema, and the state of the
//! shared cache. Writers that do not delete the cache entries of this schema start a new cache epoch.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

const NAME: &str = "m0016_installation";

#[derive(Debug)]
pub(crate) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        NAME
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        let random = if postgres { "replace(gen_random_uuid()::text, '-', '')" } else { "lower(hex(randomblob(16)))" };
        let insert = format!(
            "INSERT INTO installation (singleton, id, cache_epoch, cache_phase, needs_program) VALUES (1, {random}, 1, 3, '0.1.0')"
        );
        let statements = [
            "CREATE TABLE installation (
                singleton {int} PRIMARY KEY CHECK (singleton = 1),
                id {text} NOT NULL,
                blob_store {text},
                needs_program {text} NOT NULL,
                cache_epoch {int} NOT NULL,
                cache_server {text},
                cache_phase {int} NOT NULL
            )",
            &insert,
            "ALTER TABLE cache_invalidation ADD COLUMN cache_schema {int}",
        ];
        crate::run(manager, &statements).await?;
        crate::run(manager, if postgres { POSTGRES } else { SQLITE }).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements: &[&str] = match manager.get_database_backend() {
            DbBackend::Postgres => &[
                "DROP TRIGGER cache_invalidation_by_others ON cache_invalidation",
                "DROP FUNCTION pm_next_cache_epoch()",
            ],
            _ => &["DROP TRIGGER cache_invalidation_by_others"],
        };
        crate::run(manager, statements).await?;
        crate::run(manager, &["ALTER TABLE cache_invalidation DROP COLUMN cache_schema", "DROP TABLE installation"])
            .await
    }
}

const POSTGRES: &[&str] = &[
    "CREATE FUNCTION pm_next_cache_epoch() RETURNS trigger LANGUAGE plpgsql AS $body$
     BEGIN
         UPDATE installation SET cache_epoch = cache_epoch + 1, cache_phase = 0 WHERE cache_server IS NOT NULL;
         RETURN NULL;
     END $body$",
    "CREATE TRIGGER cache_invalidation_by_others AFTER INSERT ON cache_invalidation
     FOR EACH ROW WHEN (NEW.cache_schema IS NULL) EXECUTE FUNCTION pm_next_cache_epoch()",
];

const SQLITE: &[&str] = &["CREATE TRIGGER cache_invalidation_by_others AFTER INSERT ON cache_invalidation
     WHEN NEW.cache_schema IS NULL
     BEGIN
         UPDATE installation SET cache_epoch = cache_epoch + 1, cache_phase = 0 WHERE cache_server IS NOT NULL;
     END"];
