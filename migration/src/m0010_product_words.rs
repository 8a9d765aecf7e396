//! Search terms of products. The program splits texts into terms, so all databases find the same products.
//! Existing products get their terms right after this migration, in batches.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(Debug)]
pub(crate) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &str {
        "m0010_product_words"
    }
}

// A separate table: every step of an image rewrites the product's row, but not its terms.
const POSTGRES_UP: &[&str] = &[
    "CREATE TABLE product_words (
        product_id {int} PRIMARY KEY REFERENCES products (id) ON DELETE CASCADE,
        words TEXT NOT NULL,
        search tsvector NOT NULL GENERATED ALWAYS AS (array_to_tsvector(string_to_array(words, ' '))) STORED
    )",
    "CREATE INDEX product_words_search ON product_words USING gin (search)",
];
const POSTGRES_DOWN: &[&str] = &["DROP TABLE product_words"];

// The only ASCII characters in terms are letters, digits and `=`, so the index splits them only at spaces.
const SQLITE_UP: &[&str] = &[
    "CREATE TABLE product_words (
        product_id {int} PRIMARY KEY REFERENCES products (id) ON DELETE CASCADE,
        words TEXT NOT NULL
    )",
    "CREATE VIRTUAL TABLE product_words_search USING fts5 (
        words, content = 'product_words', content_rowid = 'product_id', tokenize = \"ascii tokenchars '='\", detail = none
    )",
    "CREATE TRIGGER product_words_insert AFTER INSERT ON product_words BEGIN
        INSERT INTO product_words_search (rowid, words) VALUES (new.product_id, new.words);
    END",
    "CREATE TRIGGER product_words_delete AFTER DELETE ON product_words BEGIN
        INSERT INTO product_words_search (product_words_search, rowid, words) VALUES ('delete', old.product_id, old.words);
    END",
    "CREATE TRIGGER product_words_update AFTER UPDATE ON product_words BEGIN
        INSERT INTO product_words_search (product_words_search, rowid, words) VALUES ('delete', old.product_id, old.words);
        INSERT INTO product_words_search (rowid, words) VALUES (new.product_id, new.words);
    END",
];
const SQLITE_DOWN: &[&str] = &["DROP TABLE product_words_search", "DROP TABLE product_words"];

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
