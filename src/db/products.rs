//! Rows of products and the list's pages. No page is found by counting rows: each begins right after the last row of the
//! page before it.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect,
    Select, Statement,
    sea_query::{Expr, ExprTrait, LikeExpr},
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::product::{ActiveModel, Column, Entity, Model},
        images,
    },
    domain::{
        Cursor, CursorKey, NewProduct, Price, Product, ProductFilter, ProductId, ProductQuery, ProductStatus, Sort,
        SortKey, UserId,
    },
};

/// Stores a product without its pictures and answers its number.
///
/// # Errors
/// [`Error::MissingReference`] if its user is not there.
pub async fn insert(
    connection: &impl ConnectionTrait,
    new: &NewProduct,
    status: ProductStatus,
    now: Timestamp,
) -> Result<ProductId, Error> {
    let row = ActiveModel {
        id: NotSet,
        user_id: Set(new.user_id.as_str().to_owned()),
        product_name: Set(new.product_name.clone()),
        product_name_folded: Set(fold(&new.product_name)),
        product_description: Set(new.product_description.clone()),
        product_price: Set(new.product_price.units()),
        status: Set(status.as_str().to_owned()),
        version: Set(1),
        created_at: Set(now.0),
        updated_at: Set(now.0),
    };
    let inserted = Entity::insert(row).exec(connection).await?;
    Ok(ProductId(inserted.last_insert_id))
}

/// The product with its pictures.
///
/// # Errors
/// If the database does not answer.
pub async fn find(connection: &impl ConnectionTrait, id: ProductId) -> Result<Option<Product>, Error> {
    let Some(row) = Entity::find_by_id(id.0).one(connection).await? else {
        return Ok(None);
    };
    Ok(with_images(connection, vec![row]).await?.pop())
}

/// A page of products in order and, if there are more, the cursor of the next one.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    connection: &impl ConnectionTrait,
    query: &ProductQuery,
) -> Result<(Vec<Product>, Option<Cursor>), Error> {
    let select = filtered(Entity::find(), &query.filter, connection.get_database_backend());
    let select = paged(select, query.sort, query.cursor.as_ref()).limit(query.limit + 1);
    let mut rows = select.all(connection).await?;
    let more = rows.len() as u64 > query.limit;
    if more {
        rows.pop();
    }
    let next = rows.last().filter(|_| more).map(|last| cursor_at(last, query.sort));
    Ok((with_images(connection, rows).await?, next))
}

/// Holds the rows of products until the transaction ends, so that what follows from their pictures is worked out by one
/// transaction at a time. SQLite has one writer anyway.
///
/// # Errors
/// If the database does not answer.
pub async fn lock(connection: &impl ConnectionTrait, ids: &[ProductId]) -> Result<(), Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let _: Vec<i64> = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::Id.is_in(ids.iter().map(|id| id.0)))
            .order_by_asc(Column::Id)
            .lock_exclusive()
            .into_tuple()
            .all(connection)
            .await?;
    }
    Ok(())
}

/// Counts a change that readers can see: the version grows by one and the status follows from the pictures again.
/// The rows must be held by [`lock`].
///
/// # Errors
/// If the database does not answer.
pub async fn touch(connection: &impl ConnectionTrait, ids: &[ProductId], now: Timestamp) -> Result<(), Error> {
    const TOUCH: &str = "UPDATE products SET version = version + 1, updated_at = $1, status = CASE
            WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND status IN ('pending', 'processing'))
                THEN 'processing'
            WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND status = 'failed') THEN 'failed'
            ELSE 'ready' END
        WHERE id = $2";
    for id in ids {
        let values = [now.0.into(), id.0.into()];
        let statement = Statement::from_sql_and_values(connection.get_database_backend(), TOUCH, values);
        connection.execute_raw(statement).await?;
    }
    Ok(())
}

/// How names are compared when their case does not matter.
fn fold(name: &str) -> String {
    name.to_lowercase()
}

fn filtered(mut select: Select<Entity>, filter: &ProductFilter, backend: DbBackend) -> Select<Entity> {
    if let Some(user_id) = &filter.user_id {
        select = select.filter(Column::UserId.eq(user_id.as_str()));
    }
    if let Some(min) = filter.min_price {
        select = select.filter(Column::ProductPrice.gte(min.units()));
    }
    if let Some(max) = filter.max_price {
        select = select.filter(Column::ProductPrice.lte(max.units()));
    }
    if let Some(status) = filter.status {
        select = select.filter(Column::Status.eq(status.as_str()));
    }
    if let Some(name) = &filter.name {
        select = select.filter(name_contains(&fold(name), backend));
    }
    select
}

/// `LIKE` with an index of three-letter pieces behind it on PostgreSQL; on SQLite the pieces are a table of their own.
fn name_contains(piece: &str, backend: DbBackend) -> Condition {
    const SHORTEST_INDEXED: usize = 3;
    if backend == DbBackend::Postgres {
        let escaped = piece.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let pattern = LikeExpr::new(format!("%{escaped}%")).escape('\\');
        return Condition::all().add(Expr::col((Entity, Column::ProductNameFolded)).like(pattern));
    }
    let contains = Expr::cust_with_values("instr(product_name_folded, ?) > 0", [piece]);
    if piece.chars().count() < SHORTEST_INDEXED {
        return Condition::all().add(contains);
    }
    let phrase = format!("\"{}\"", piece.replace('"', "\"\""));
    let candidates = Expr::cust_with_values(
        "id IN (SELECT rowid FROM product_name_pieces WHERE product_name_pieces MATCH ?)",
        [phrase],
    );
    Condition::all().add(candidates).add(contains)
}

fn paged(select: Select<Entity>, sort: Sort, cursor: Option<&Cursor>) -> Select<Entity> {
    let order = if sort.descending { Order::Desc } else { Order::Asc };
    let column = column_of(sort.key);
    let mut select = select.order_by(column, order.clone());
    if sort.key != SortKey::Id {
        select = select.order_by(Column::Id, order);
    }
    match cursor {
        Some(cursor) => select.filter(behind(cursor)),
        None => select,
    }
}

/// Rows that come after the cursor's in its order: a row comparison, which both databases answer from the index.
fn behind(cursor: &Cursor) -> Expr {
    let id = Expr::value(cursor.id.0);
    let (row, last) = match &cursor.key {
        CursorKey::None => (Expr::col(Column::Id), id),
        CursorKey::Number(number) => (pair(cursor.sort.key), Expr::tuple([Expr::value(*number), id])),
        CursorKey::Text(text) => (pair(cursor.sort.key), Expr::tuple([Expr::value(text.clone()), id])),
    };
    if cursor.sort.descending { row.lt(last) } else { row.gt(last) }
}

fn pair(key: SortKey) -> Expr {
    Expr::tuple([Expr::col(column_of(key)), Expr::col(Column::Id)])
}

const fn column_of(key: SortKey) -> Column {
    match key {
        SortKey::Id => Column::Id,
        SortKey::Price => Column::ProductPrice,
        SortKey::Name => Column::ProductName,
        SortKey::CreatedAt => Column::CreatedAt,
    }
}

fn cursor_at(row: &Model, sort: Sort) -> Cursor {
    let key = match sort.key {
        SortKey::Id => CursorKey::None,
        SortKey::Price => CursorKey::Number(row.product_price),
        SortKey::Name => CursorKey::Text(row.product_name.clone()),
        SortKey::CreatedAt => CursorKey::Number(row.created_at),
    };
    Cursor { sort, key, id: ProductId(row.id) }
}

/// Two more statements for a whole page, however many products it has.
async fn with_images(connection: &impl ConnectionTrait, rows: Vec<Model>) -> Result<Vec<Product>, Error> {
    let ids: Vec<_> = rows.iter().map(|row| ProductId(row.id)).collect();
    let mut images = images::of_products(connection, &ids).await?;
    rows.into_iter()
        .map(|row| {
            let id = ProductId(row.id);
            let status = ProductStatus::parse(&row.status)
                .ok_or_else(|| Error::Corrupt(format!("product {id} has the status {}", row.status)))?;
            Ok(Product {
                id,
                user_id: UserId::stored(row.user_id),
                product_name: row.product_name,
                product_description: row.product_description,
                product_price: Price::from_units(row.product_price),
                status,
                images: images.remove(&id).unwrap_or_default(),
                version: row.version,
                created_at: Timestamp(row.created_at),
                updated_at: Timestamp(row.updated_at),
            })
        })
        .collect()
}
