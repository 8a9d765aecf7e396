//! The index of search terms: GIN over `tsvector` on PostgreSQL, FTS5 on SQLite.
//!
//! The program, not the database, splits texts into terms.

use sea_orm::{
    ConnectionTrait, DbBackend, QueryTrait as _, Select, Statement, Value,
    sea_query::{Alias, Expr, ExprTrait as _, IntoIden as _, JoinType, Order},
};

use crate::{
    db::{Error, entity::product, statement::query},
    domain::{
        ProductId,
        search::{Condition, stored_words},
    },
};

/// Selects SQLite's rows that match the terms.
pub(super) const MATCHING: &str = "SELECT rowid FROM product_words_search WHERE product_words_search MATCH ?";

/// Replaces the terms of a product.
pub async fn set(connection: &impl ConnectionTrait, id: ProductId, name: &str, description: &str) -> Result<(), Error> {
    const SET: &str = "INSERT INTO product_words (product_id, words) VALUES ($1, $2)
        ON CONFLICT (product_id) DO UPDATE SET words = excluded.words WHERE product_words.words <> excluded.words";
    let values = [id.0.into(), stored_words(name, description).into()];
    connection.execute_raw(Statement::from_sql_and_values(connection.get_database_backend(), SET, values)).await?;
    Ok(())
}

/// Stores the terms of products that have none.
/// It takes up to `limit` products (at most 400) by id after `after`.
/// Such products are from an older version or a backup. Returns the last of them, or `None` if there are no more.
pub async fn fill(connection: &impl ConnectionTrait, after: ProductId, limit: u64) -> Result<Option<ProductId>, Error> {
    const WITHOUT: &str = "SELECT id, product_name, product_description FROM products WHERE id > $1
        AND NOT EXISTS (SELECT 1 FROM product_words WHERE product_id = products.id) ORDER BY id LIMIT $2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(connection, WITHOUT, vec![after.0.into(), limit.into()]).await?;
    let mut last = None;
    let (mut places, mut values): (Vec<String>, Vec<Value>) = Default::default();
    for row in rows {
        let (id, name, description): (i64, String, String) =
            (row.try_get("", "id")?, row.try_get("", "product_name")?, row.try_get("", "product_description")?);
        let place = values.len();
        places.push(format!("SELECT CAST(${} AS BIGINT) AS id, CAST(${} AS TEXT) AS words", place + 1, place + 2));
        values.extend([id.into(), stored_words(&name, &description).into()]);
        last = Some(ProductId(id));
    }
    if last.is_none() {
        return Ok(None);
    }
    // A product that was deleted meanwhile is skipped; a changed one already has its new terms.
    let sql = format!(
        "INSERT INTO product_words (product_id, words)
        SELECT made.id, made.words FROM ({}) AS made WHERE EXISTS (SELECT 1 FROM products WHERE products.id = made.id)
        ON CONFLICT (product_id) DO NOTHING",
        places.join(" UNION ALL ")
    );
    connection.execute_raw(Statement::from_sql_and_values(connection.get_database_backend(), sql, values)).await?;
    Ok(last)
}

/// Stores the terms of all products that have none.
pub async fn fill_all(connection: &impl ConnectionTrait) -> Result<(), Error> {
    const BATCH_ROWS: u64 = 400;
    let mut after = ProductId(i64::MIN);
    while let Some(last) = fill(connection, after, BATCH_ROWS).await? {
        after = last;
    }
    Ok(())
}

/// Returns the condition that a product matches the terms.
pub(super) fn having(condition: &Condition, postgres: bool) -> Expr {
    if postgres {
        const HAS: &str = "products.id IN (SELECT product_id FROM product_words WHERE search @@ CAST($1 AS tsquery))";
        return Expr::cust_with_values(HAS, [condition.as_tsquery()]);
    }
    Expr::cust_with_values(format!("products.id IN ({MATCHING})"), [condition.as_fts5()])
}

/// Returns up to `limit` of `rows` that match the terms, newest first, before `before`.
/// The index of terms is the outer loop: on SQLite it returns ids in order, so nothing is sorted and no more rows are
/// read than the page needs.
pub(in crate::db) fn page(
    rows: Select<product::Entity>,
    condition: &Condition,
    before: Option<ProductId>,
    limit: u64,
    backend: DbBackend,
) -> Statement {
    let postgres = backend == DbBackend::Postgres;
    let (table, id) = if postgres { ("product_words", "product_id") } else { ("product_words_search", "rowid") };
    let (table, id) = (Alias::new(table).into_iden(), Alias::new(id).into_iden());
    let number = || Expr::col((table.clone(), id.clone()));
    let has = match postgres {
        true => Expr::cust_with_values("product_words.search @@ CAST($1 AS tsquery)", [condition.as_tsquery()]),
        false => Expr::cust_with_values("product_words_search MATCH ?", [condition.as_fts5()]),
    };
    let mut select = rows.into_query();
    // SQLite does not reorder a cross join.
    let join = if postgres { JoinType::InnerJoin } else { JoinType::CrossJoin };
    let same = number().equals((product::Entity, product::Column::Id));
    select.from_clear().from(table.clone()).join(join, product::Entity, same.clone());
    if !postgres {
        select.and_where(same);
    }
    select.and_where(has).order_by_expr(number(), Order::Desc).limit(limit);
    if let Some(before) = before {
        select.and_where(number().lt(before.0));
    }
    backend.build(&select)
}

#[cfg(test)]
mod tests {
    use sea_orm::EntityTrait as _;

    use super::*;
    use crate::{
        db::{Config, Database, migrate},
        domain::search::{RelevanceTier, SearchTerms},
    };

    #[tokio::test]
    async fn a_page_of_a_search_scans_the_index_of_terms_and_sorts_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::Sqlite { path: home.path().join("pm.db") };
        let database = Database::connect(&config).await.expect("a database");
        migrate::up(&database, None).await.expect("a schema");
        let words = SearchTerms::parse("red la").expect("words");
        for tier in RelevanceTier::ALL {
            for before in [None, Some(ProductId(5))] {
                let mut page = page(product::Entity::find(), &words.at(tier), before, 10, DbBackend::Sqlite);
                page.sql.insert_str(0, "EXPLAIN QUERY PLAN ");
                let rows = database.read().query_all_raw(page).await.expect("a plan");
                let plan: Vec<String> = rows.iter().map(|row| row.try_get("", "detail").expect("a step")).collect();
                assert_eq!(plan.len(), 2, "{plan:?}");
                assert!(plan[0].starts_with("SCAN product_words_search VIRTUAL TABLE INDEX"), "{plan:?}");
                assert!(plan[1].starts_with("SEARCH products USING INTEGER PRIMARY KEY"), "{plan:?}");
            }
        }
    }
}
