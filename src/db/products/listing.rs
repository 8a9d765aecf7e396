//! Pages of the product list, by keyset pagination.
//!
//! Each page starts right after the last row of the previous page, so no rows are counted.

use sea_orm::{
    Condition, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult as _, IdenStatic, Order, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select, Statement, Value,
    sea_query::{self, Expr, ExprTrait, LikeExpr},
};

use crate::{
    db::{
        Error,
        entity::product::{Column, Entity, Model},
        products::{spellings, terms, with_images},
    },
    domain::{
        Cursor, CursorKey, Price, Product, ProductFilter, ProductId, ProductQuery, Sort, SortKey,
        search::{RelevanceTier, SearchTerms},
    },
};

/// Access path of a page.
/// PostgreSQL's planner estimates how many rows match a condition. SQLite's does not and would sort half the table for
/// one page. So on SQLite every column that must not use an index is written as `+column`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AccessPath {
    /// The planner chooses.
    Planned,
    /// Scan the sort order's index and test each row until the page is full.
    Order,
    /// Sort all rows in the price range.
    Price,
    /// Sort all rows with the status.
    Status,
    /// Sort all rows whose name may contain the text.
    Name,
    /// Sort all rows that match the search terms.
    Terms,
    /// Sort all rows of the table, or of the user. In another order each row costs ten times as much.
    Scan,
}

/// An access path, the index rows that it would read, and their parameters.
type Probe = (AccessPath, &'static str, Vec<Value>);

/// Rows that can be sorted or skipped at no noticeable cost.
const FEW: u64 = 2_000;

/// Rows that can be sorted, or skipped in order, in about 0.1 s.
const MANY: u64 = 50_000;

/// Shorter parts of a name are not indexed.
const MIN_INDEXED_CHARS: usize = 3;

/// SQLite's trigram index of names.
const NAMED: &str = "SELECT rowid FROM product_name_pieces WHERE product_name_pieces MATCH ?";

/// Returns a page of products and, if there is one, the next page's cursor.
pub async fn list(
    connection: &impl ConnectionTrait,
    query: &ProductQuery,
) -> Result<(Vec<Product>, Option<Cursor>), Error> {
    if let (SortKey::Relevance, Some(words)) = (query.sort.key, &query.filter.q) {
        return by_relevance(connection, query, words).await;
    }
    let path = choose_path(connection, query).await?;
    let mut rows = select(query, path).all(connection).await?;
    let more = rows.len() as u64 > query.limit;
    if more {
        rows.pop();
    }
    let next = rows.last().filter(|_| more).map(|last| cursor_at(last, query.sort));
    Ok((with_images(connection, rows).await?, next))
}

/// Chooses the access path of a page.
/// It uses a condition that few rows match, or else the index of the sort order. If the matching rows are at the far
/// end of that order, such as new rows at the end, it accepts sorting more of them.
async fn choose_path(connection: &impl ConnectionTrait, query: &ProductQuery) -> Result<AccessPath, Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        return Ok(AccessPath::Planned);
    }
    if order_satisfies_filter(&query.filter, query.sort) {
        return Ok(AccessPath::Order);
    }
    let probes = probes(&query.filter, query.sort);
    for most in [FEW, MANY] {
        if let Some(path) = first_within(connection, &probes, most).await? {
            return Ok(path);
        }
        // In the order of the ids, an index scan is a table scan.
        if most == MANY && query.sort.key == SortKey::Id || fills_within(connection, query, most).await? {
            return Ok(AccessPath::Order);
        }
    }
    Ok(AccessPath::Scan)
}

/// Returns whether the index of the sort order satisfies the whole filter.
fn order_satisfies_filter(filter: &ProductFilter, sort: Sort) -> bool {
    let price = filter.min_price.is_some() || filter.max_price.is_some();
    let indexed = |column| uses_index(AccessPath::Order, column, filter, sort);
    filter.name.is_none()
        && filter.q.is_none()
        && (!price || indexed(Column::ProductPrice))
        && (filter.status.is_none() || indexed(Column::Status))
}

/// Returns the first access path with at most `most` rows; it counts no more.
async fn first_within(
    connection: &impl ConnectionTrait,
    probes: &[Probe],
    most: u64,
) -> Result<Option<AccessPath>, Error> {
    for (path, rows, values) in probes {
        let sql = format!("SELECT count(*) AS seen FROM ({rows} LIMIT ?)");
        let values = values.iter().cloned().chain([(most + 1).into()]);
        if count(connection, Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await? <= most {
            return Ok(Some(*path));
        }
    }
    Ok(None)
}

/// Returns whether scanning `most` rows in order fills the page or reaches the end.
async fn fills_within(connection: &impl ConnectionTrait, query: &ProductQuery, most: u64) -> Result<bool, Error> {
    let indexed = |column| uses_index(AccessPath::Order, column, &query.filter, query.sort);
    let mut scanned = ProductQuery { limit: most, ..query.clone() };
    (scanned.filter.name, scanned.filter.q) = (None, None);
    if !indexed(Column::ProductPrice) {
        (scanned.filter.min_price, scanned.filter.max_price) = (None, None);
    }
    if !indexed(Column::Status) {
        scanned.filter.status = None;
    }
    let matching = Entity::find().select_only().expr(Expr::val(1)).limit(query.limit + 1);
    let mut matching = filtered(matching, &query.filter, query.sort, AccessPath::Order).into_query();
    let scanned = select(&scanned, AccessPath::Order).into_query();
    matching.from_clear().from_subquery(scanned.clone(), Entity);
    Ok(count_of(connection, matching).await? > query.limit || count_of(connection, scanned).await? <= most)
}

async fn count_of(connection: &impl ConnectionTrait, rows: sea_query::SelectStatement) -> Result<u64, Error> {
    let mut seen = sea_query::Query::select();
    seen.expr_as(Expr::cust("count(*)"), "seen").from_subquery(rows, "rows");
    count(connection, DbBackend::Sqlite.build(&seen)).await
}

async fn count(connection: &impl ConnectionTrait, statement: Statement) -> Result<u64, Error> {
    let seen: i64 = connection.query_one_raw(statement).await?.ok_or_else(Error::no_row)?.try_get("", "seen")?;
    Ok(seen.unsigned_abs())
}

/// Returns the access paths to probe, with the index rows that each would read.
fn probes(filter: &ProductFilter, sort: Sort) -> Vec<Probe> {
    let price = filter.min_price.is_some() || filter.max_price.is_some();
    let order_uses_price = uses_index(AccessPath::Order, Column::ProductPrice, filter, sort);
    let order_uses_status = uses_index(AccessPath::Order, Column::Status, filter, sort);
    let mut probes = Vec::new();
    let user = filter.user_id.as_ref().map(|id| Value::from(id.as_str()));
    if let Some(user) = &user {
        probes.push((AccessPath::Order, "SELECT 1 FROM products WHERE user_id = ?", vec![user.clone()]));
    }
    if price {
        let least = filter.min_price.map_or(0, Price::units).into();
        let most = filter.max_price.unwrap_or(Price::MAX).units().into();
        let path = if order_uses_price { AccessPath::Order } else { AccessPath::Price };
        probes.push(match user {
            Some(user) => {
                let rows = "SELECT 1 FROM products WHERE user_id = ? AND product_price BETWEEN ? AND ?";
                (path, rows, vec![user, least, most])
            }
            None => (path, "SELECT 1 FROM products WHERE product_price BETWEEN ? AND ?", vec![least, most]),
        });
    }
    if let Some(status) = filter.status {
        let path = if order_uses_status { AccessPath::Order } else { AccessPath::Status };
        probes.push((path, "SELECT 1 FROM products WHERE status = ?", vec![status.as_str().into()]));
    }
    if let Some(pieces) = filter.name.as_deref().map(spellings)
        && pieces.iter().all(|piece| piece.chars().count() >= MIN_INDEXED_CHARS)
    {
        probes.push((AccessPath::Name, NAMED, vec![phrase(&pieces).into()]));
    }
    if let Some(words) = &filter.q {
        probes.push((AccessPath::Terms, terms::MATCHING, vec![words.found().as_fts5().into()]));
    }
    probes
}

/// Returns whether this access path uses an index of the column.
/// Otherwise the column is tested after the rows are found.
fn uses_index(path: AccessPath, column: Column, filter: &ProductFilter, sort: Sort) -> bool {
    match (path, column) {
        (AccessPath::Planned, _) | (AccessPath::Order | AccessPath::Price | AccessPath::Scan, Column::UserId) => true,
        (AccessPath::Price, Column::ProductPrice) | (AccessPath::Status, Column::Status) => true,
        (AccessPath::Order, Column::ProductPrice) => sort.key == SortKey::Price,
        // No index has the statuses of one user's products.
        (AccessPath::Order, Column::Status) => sort.key == SortKey::Id && filter.user_id.is_none(),
        _ => false,
    }
}

/// Returns the column, with a `+` if no index may be used for it.
fn operand(column: Column, indexed: bool) -> Expr {
    if indexed { Expr::col((Entity, column)) } else { Expr::cust(format!("+products.{}", column.as_str())) }
}

/// Selects one row more than the page size, to detect a next page.
fn select(query: &ProductQuery, path: AccessPath) -> Select<Entity> {
    let select = filtered(Entity::find(), &query.filter, query.sort, path);
    let indexed = matches!(path, AccessPath::Planned | AccessPath::Order);
    paged(select, query.sort, query.cursor.as_ref(), indexed).limit(query.limit + 1)
}

fn filtered(mut select: Select<Entity>, filter: &ProductFilter, sort: Sort, path: AccessPath) -> Select<Entity> {
    let column = |column| operand(column, uses_index(path, column, filter, sort));
    if let Some(user_id) = &filter.user_id {
        select = select.filter(column(Column::UserId).eq(user_id.as_str()));
    }
    if let Some(min) = filter.min_price {
        select = select.filter(column(Column::ProductPrice).gte(min.units()));
    }
    if let Some(max) = filter.max_price {
        select = select.filter(column(Column::ProductPrice).lte(max.units()));
    }
    if let Some(status) = filter.status {
        select = select.filter(column(Column::Status).eq(status.as_str()));
    }
    if let Some(name) = &filter.name {
        select = named(select, &spellings(name), path);
    }
    match &filter.q {
        Some(words) if sort.key != SortKey::Relevance => {
            select.filter(terms::having(&words.found(), path == AccessPath::Planned))
        }
        _ => select,
    }
}

/// Returns a page by relevance: tier by tier, the best first, and the newest products first within a tier.
/// Each tier is read in the order of the ids and stops when the page is full.
async fn by_relevance(
    connection: &impl ConnectionTrait,
    query: &ProductQuery,
    words: &SearchTerms,
) -> Result<(Vec<Product>, Option<Cursor>), Error> {
    let postgres = connection.get_database_backend() == DbBackend::Postgres;
    let path = if postgres { AccessPath::Planned } else { AccessPath::Terms };
    let (first, mut before) = match &query.cursor {
        Some(Cursor { key: CursorKey::Number(number), id, .. }) => (RelevanceTier::of_number(*number), Some(*id)),
        _ => (None, None),
    };
    let first = first.unwrap_or(RelevanceTier::Whole);
    let mut found: Vec<(RelevanceTier, Model)> = Vec::new();
    for tier in RelevanceTier::ALL.into_iter().filter(|tier| *tier <= first) {
        let rows = filtered(Entity::find(), &query.filter, query.sort, path);
        let left = query.limit + 1 - found.len() as u64;
        let statement = terms::page(rows, &words.at(tier), before.take(), left, connection.get_database_backend());
        let rows = Model::find_by_statement(statement).all(connection).await?;
        found.extend(rows.into_iter().map(|row| (tier, row)));
        if found.len() as u64 > query.limit {
            break;
        }
    }
    let more = found.len() as u64 > query.limit;
    if more {
        found.pop();
    }
    let next = found.last().filter(|_| more).map(|(tier, last)| Cursor {
        sort: query.sort,
        key: CursorKey::Number(tier.number()),
        id: ProductId(last.id),
    });
    let rows = found.into_iter().map(|(_, row)| row).collect();
    Ok((with_images(connection, rows).await?, next))
}

/// Filters by name: `LIKE` with a trigram index on PostgreSQL, a trigram table on SQLite.
fn named(select: Select<Entity>, pieces: &[String], path: AccessPath) -> Select<Entity> {
    let has = |piece: &String| {
        if path == AccessPath::Planned {
            let escaped = piece.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            let pattern = LikeExpr::new(format!("%{escaped}%")).escape('\\');
            return Expr::col((Entity, Column::ProductNameFolded)).like(pattern);
        }
        Expr::cust_with_values("instr(product_name_folded, ?) > 0", [piece.as_str()])
    };
    let select = select.filter(pieces.iter().fold(Condition::any(), |any, piece| any.add(has(piece))));
    if path == AccessPath::Name {
        return select.filter(Expr::cust_with_values(format!("id IN ({NAMED})"), [phrase(pieces)]));
    }
    select
}

/// Returns an FTS5 query for one of the pieces, with all special characters quoted.
fn phrase(pieces: &[String]) -> String {
    let quoted: Vec<_> = pieces.iter().map(|piece| format!("\"{}\"", piece.replace('"', "\"\""))).collect();
    quoted.join(" OR ")
}

fn paged(select: Select<Entity>, sort: Sort, cursor: Option<&Cursor>, indexed: bool) -> Select<Entity> {
    let order = if sort.descending { Order::Desc } else { Order::Asc };
    let mut select = select.order_by(operand(column_of(sort.key), indexed), order.clone());
    if sort.key != SortKey::Id {
        select = select.order_by(operand(Column::Id, indexed), order);
    }
    match cursor {
        Some(cursor) => select.filter(behind(cursor, indexed)),
        None => select,
    }
}

/// Filters rows after the cursor: a row comparison, which both databases answer from the index.
fn behind(cursor: &Cursor, indexed: bool) -> Expr {
    let id = Expr::value(cursor.id.0);
    let pair = Expr::tuple([operand(column_of(cursor.sort.key), indexed), operand(Column::Id, indexed)]);
    let (row, last) = match &cursor.key {
        CursorKey::None => (operand(Column::Id, indexed), id),
        CursorKey::Number(number) => (pair, Expr::tuple([Expr::value(*number), id])),
        CursorKey::Text(text) => (pair, Expr::tuple([Expr::value(text.clone()), id])),
    };
    if cursor.sort.descending { row.lt(last) } else { row.gt(last) }
}

const fn column_of(key: SortKey) -> Column {
    match key {
        SortKey::Id | SortKey::Relevance => Column::Id,
        SortKey::Price => Column::ProductPrice,
        SortKey::Name => Column::ProductName,
        SortKey::CreatedAt => Column::CreatedAt,
    }
}

fn cursor_at(row: &Model, sort: Sort) -> Cursor {
    let key = match sort.key {
        SortKey::Id | SortKey::Relevance => CursorKey::None,
        SortKey::Price => CursorKey::Number(row.product_price),
        SortKey::Name => CursorKey::Text(row.product_name.clone()),
        SortKey::CreatedAt => CursorKey::Number(row.created_at),
    };
    Cursor { sort, key, id: ProductId(row.id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Config, Database, migrate};

    const KEYS: [SortKey; 4] = [SortKey::Id, SortKey::Price, SortKey::Name, SortKey::CreatedAt];

    async fn sqlite(directory: &tempfile::TempDir) -> Database {
        let database = Database::connect(&Config::Sqlite { path: directory.path().join("pm.db") }).await.unwrap();
        migrate::up(&database, None).await.unwrap();
        database
    }

    fn query(parameters: &str, key: SortKey, descending: bool, deep: bool) -> ProductQuery {
        let pairs = parameters.split('&').filter_map(|pair| pair.split_once('='));
        let sort = Sort { key, descending };
        let last = match key {
            SortKey::Id | SortKey::Relevance => CursorKey::None,
            SortKey::Name => CursorKey::Text("n".into()),
            SortKey::Price | SortKey::CreatedAt => CursorKey::Number(5),
        };
        let cursor = deep.then_some(Cursor { sort, key: last, id: ProductId(3) });
        ProductQuery { sort, cursor, ..ProductQuery::parse(pairs).unwrap() }
    }

    /// Returns SQLite's query plan for a page with this access path.
    async fn plan(database: &Database, query: &ProductQuery, path: AccessPath) -> String {
        let mut statement = select(query, path).build(DbBackend::Sqlite);
        statement.sql.insert_str(0, "EXPLAIN QUERY PLAN ");
        let rows = database.read().query_all_raw(statement).await.unwrap();
        rows.iter().map(|row| row.try_get::<String>("", "detail").unwrap() + "\n").collect()
    }

    async fn of_every_order(parameters: &str, path: AccessPath, check: impl Fn(SortKey, &str)) {
        let directory = tempfile::tempdir().unwrap();
        let database = sqlite(&directory).await;
        for key in KEYS {
            for (descending, deep) in [(false, false), (false, true), (true, false), (true, true)] {
                let plan = plan(&database, &query(parameters, key, descending, deep), path).await;

                check(key, &plan);
            }
        }
    }

    #[tokio::test]
    async fn an_index_scan_in_any_order_sorts_nothing() {
        for others in ["", "min_price=1&max_price=9", "name=lamp", "status=ready", "max_price=9&name=lamp&status=ready"]
        {
            of_every_order(others, AccessPath::Order, |key, plan| {
                let index = match key {
                    SortKey::Id if others.contains("status") => "products_by_status (status=?",
                    SortKey::Id => "products",
                    SortKey::Price => "INDEX products_by_price",
                    SortKey::Name => "INDEX products_by_name",
                    SortKey::CreatedAt => "INDEX products_by_creation",
                    SortKey::Relevance => unreachable!("not an order of the table"),
                };
                assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{others} by {key:?}: {plan}");
            })
            .await;
            of_every_order(&format!("user_id=u&{others}"), AccessPath::Order, |key, plan| {
                let index = match key {
                    SortKey::Id => "INDEX products_of_user (user_id=?",
                    SortKey::Price => "INDEX products_of_user_by_price (user_id=?",
                    SortKey::Name => "INDEX products_of_user_by_name (user_id=?",
                    SortKey::CreatedAt => "INDEX products_of_user_by_creation (user_id=?",
                    SortKey::Relevance => unreachable!("not an order of the table"),
                };
                assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "u, {others} by {key:?}: {plan}");
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_selective_condition_uses_its_index_in_any_order() {
        let all = "min_price=1&max_price=9&name=lamp&status=ready";
        for (path, index) in [
            (AccessPath::Price, "products_by_price (product_price>? AND product_price<?)"),
            (AccessPath::Status, "products_by_status (status=?)"),
            (AccessPath::Name, "SEARCH products USING INTEGER PRIMARY KEY (rowid=?)"),
        ] {
            of_every_order(all, path, |key, plan| assert!(plan.contains(index), "{path:?} by {key:?}: {plan}")).await;
        }
        let index = "products_of_user_by_price (user_id=? AND product_price>? AND product_price<?)";
        of_every_order(&format!("user_id=u&{all}"), AccessPath::Price, |key, plan| {
            assert!(plan.contains(index), "by {key:?}: {plan}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_scan_reads_the_table_or_the_rows_of_the_user() {
        of_every_order("min_price=1&name=qq", AccessPath::Scan, |_, plan| {
            assert!(plan.contains("SCAN products\n"), "{plan}")
        })
        .await;
        of_every_order("user_id=u&min_price=1&name=qq&status=ready", AccessPath::Scan, |_, plan| {
            assert!(plan.contains("INDEX products_of_user") && plan.contains("(user_id=?)\n"), "{plan}");
        })
        .await;
    }

    #[tokio::test]
    async fn the_first_selective_condition_is_chosen() {
        const ROWS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
            INSERT INTO products (user_id, product_name, product_name_folded, product_description, product_price,
                status, version, created_at, updated_at)
            SELECT iif(i % 10, 'big', 'small'), 'Lamp', iif(i = 7, 'rare lamp', 'lamp'), '', i * 10000,
                CASE WHEN i = 9 THEN 'failed' WHEN i > 3500 THEN 'processing' ELSE 'ready' END, 1, i, i FROM n";
        let directory = tempfile::tempdir().unwrap();
        let database = sqlite(&directory).await;
        let connection = database.read();
        connection
            .execute_unprepared("INSERT INTO users (id, created_at) VALUES ('big', 1), ('small', 1)")
            .await
            .unwrap();
        connection.execute_unprepared(ROWS).await.unwrap();
        for (parameters, key, expected) in [
            ("", SortKey::Name, AccessPath::Order),
            ("user_id=big", SortKey::Name, AccessPath::Order),
            ("min_price=5&max_price=9", SortKey::Name, AccessPath::Price),
            ("min_price=5&max_price=9", SortKey::Price, AccessPath::Order),
            ("min_price=5", SortKey::Name, AccessPath::Order),
            ("min_price=5800", SortKey::Id, AccessPath::Price),
            ("max_price=2000", SortKey::Id, AccessPath::Price),
            ("max_price=2001", SortKey::Id, AccessPath::Order),
            ("status=failed", SortKey::CreatedAt, AccessPath::Status),
            ("status=failed", SortKey::Id, AccessPath::Order),
            ("status=ready", SortKey::CreatedAt, AccessPath::Order),
            ("status=processing", SortKey::CreatedAt, AccessPath::Status),
            ("status=processing", SortKey::Name, AccessPath::Status),
            ("status=processing", SortKey::Id, AccessPath::Order),
            ("min_price=2100&name=la", SortKey::CreatedAt, AccessPath::Price),
            ("name=RARE", SortKey::Id, AccessPath::Name),
            ("name=lamp", SortKey::Id, AccessPath::Order),
            ("name=la", SortKey::Id, AccessPath::Order),
            ("name=la", SortKey::Name, AccessPath::Order),
            ("name=qq", SortKey::Id, AccessPath::Order),
            ("name=qq", SortKey::Name, AccessPath::Order),
            ("name=%22 OR %22", SortKey::Id, AccessPath::Name),
            ("min_price=5&name=rare&status=ready", SortKey::Price, AccessPath::Name),
            ("user_id=small&name=rare", SortKey::Id, AccessPath::Order),
            ("user_id=big&name=rare", SortKey::Id, AccessPath::Name),
            ("user_id=big&max_price=9", SortKey::Name, AccessPath::Price),
        ] {
            let query = query(parameters, key, false, false);
            let chosen = choose_path(&connection, &query).await.unwrap();
            assert_eq!(chosen, expected, "{parameters} by {key:?}");
        }
    }
}
