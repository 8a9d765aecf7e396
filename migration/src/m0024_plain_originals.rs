//! Flag: uploaded originals may have keys that look like those of renditions. Before this migration all had such keys,
//! and earlier programs and their backups may still add some.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

const NAME: &str = "m0024_plain_originals";

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
        const COLUMN: &str = "ALTER TABLE installation ADD COLUMN plain_originals {int} NOT NULL DEFAULT 0";
        // Products in the cache link to originals by their keys.
        const CACHE: &str = "UPDATE installation SET cache_epoch = cache_epoch + 1, cache_phase = 0
            WHERE cache_server IS NOT NULL";
        crate::run(manager, &[COLUMN, CACHE]).await?;
        crate::run(manager, if is_postgres(manager) { POSTGRES } else { SQLITE }).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements: &[&str] = if is_postgres(manager) {
            &["DROP TRIGGER plain_original ON images", "DROP FUNCTION pm_note_plain_original()"]
        } else {
            &["DROP TRIGGER plain_original"]
        };
        crate::run(manager, statements).await?;
        crate::run(manager, &["ALTER TABLE installation DROP COLUMN plain_originals"]).await
    }
}

fn is_postgres(manager: &SchemaManager<'_>) -> bool {
    manager.get_database_backend() == DbBackend::Postgres
}

const POSTGRES: &[&str] = &[
    "UPDATE installation SET plain_originals = 1
     WHERE pg_sequence_last_value(pg_get_serial_sequence('images', 'id')::regclass) IS NOT NULL",
    "CREATE FUNCTION pm_note_plain_original() RETURNS trigger LANGUAGE plpgsql AS $body$
     BEGIN
         UPDATE installation SET plain_originals = 1 WHERE plain_originals = 0;
         RETURN NULL;
     END $body$",
    "CREATE TRIGGER plain_original AFTER INSERT ON images
     FOR EACH ROW WHEN (NEW.source_key NOT LIKE 'original/%') EXECUTE FUNCTION pm_note_plain_original()",
];

const SQLITE: &[&str] = &[
    "UPDATE installation SET plain_originals = 1
     WHERE EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'images' AND seq > 0)",
    "CREATE TRIGGER plain_original AFTER INSERT ON images
     WHEN NEW.source_key NOT LIKE 'original/%'
     BEGIN
         UPDATE installation SET plain_originals = 1 WHERE plain_originals = 0;
     END",
];
