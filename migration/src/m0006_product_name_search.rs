//! A trigram index for "name contains": `pg_trgm` on PostgreSQL if the role may create it, FTS5's trigram tokenizer on
//! SQLite. Without it, lists are correct but slower.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(Debug)]
pub(crate) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0006_product_name_search"
    }
}

const POSTGRES_UP: &[&str] = &["DO $$ BEGIN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX products_by_name_piece ON products USING gin (product_name_folded gin_trgm_ops);
    EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
        RAISE NOTICE 'pg_trgm is not available: searching within names is slow on large catalogues';
    END $$"];
const POSTGRES_DOWN: &[&str] = &["DROP INDEX IF EXISTS products_by_name_piece"];

const SQLITE_UP: &[&str] = &[
    "CREATE VIRTUAL TABLE product_name_pieces USING fts5 (
        product_name_folded, content = 'products', content_rowid = 'id', tokenize = 'trigram case_sensitive 1', detail = full
    )",
    "INSERT INTO product_name_pieces (product_name_pieces) VALUES ('rebuild')",
    "CREATE TRIGGER product_name_pieces_insert AFTER INSERT ON products BEGIN
        INSERT INTO product_name_pieces (rowid, product_name_folded) VALUES (new.id, new.product_name_folded);
    END",
    "CREATE TRIGGER product_name_pieces_delete AFTER DELETE ON products BEGIN
        INSERT INTO product_name_pieces (product_name_pieces, rowid, product_name_folded)
            VALUES ('delete', old.id, old.product_name_folded);
    END",
    "CREATE TRIGGER product_name_pieces_update AFTER UPDATE OF product_name_folded ON products BEGIN
        INSERT INTO product_name_pieces (product_name_pieces, rowid, product_name_folded)
            VALUES ('delete', old.id, old.product_name_folded);
        INSERT INTO product_name_pieces (rowid, product_name_folded) VALUES (new.id, new.product_name_folded);
    END",
];
const SQLITE_DOWN: &[&str] = &[
    "DROP TRIGGER product_name_pieces_update",
    "DROP TRIGGER product_name_pieces_delete",
    "DROP TRIGGER product_name_pieces_insert",
    "DROP TABLE product_name_pieces",
];

#[async_trait::async_trait]
impl MigrationTrait for Step {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        crate::run(manager, if postgres { POSTGRES_UP } else { SQLITE_UP }).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        crate::run(manager, if postgres { POSTGRES_DOWN } else { SQLITE_DOWN }).await
    }
}
