//! Selects settled images and starts a new generation for them.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::{Expr, ExprTrait, Query},
};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::{
            image::{Column, Entity},
            product,
        },
        lengths::{padded, parts},
        products::images::source_of,
        statement::query,
    },
    domain::{ImageId, ImageSource, ImageStatus, ProductId, UserId},
};

/// Filter for images to process again. Only settled images match, since the others have a live job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only images of these products; all if empty.
    pub products: Vec<ProductId>,
    /// Only images of this user.
    pub user_id: Option<UserId>,
    /// Only images with these statuses.
    pub statuses: Vec<ImageStatus>,
    /// Only images that last changed at or after this time.
    pub since: Option<Timestamp>,
}

/// A selected image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The image's id.
    pub id: ImageId,
    /// The image's product.
    pub product_id: ProductId,
    /// The image's current generation.
    pub generation: i32,
}

/// Returns up to `limit` selected images after `after`, ordered by id.
pub async fn select(
    connection: &impl ConnectionTrait,
    selection: &Selection,
    after: Option<ImageId>,
    limit: u64,
) -> Result<Vec<Selected>, Error> {
    let mut found = selected(selection)
        .select_only()
        .columns([Column::Id, Column::ProductId, Column::Generation])
        .order_by_asc(Column::Id)
        .limit(limit);
    if let Some(after) = after {
        found = found.filter(Column::Id.gt(after.0));
    }
    let rows: Vec<(i64, i64, i32)> = found.into_tuple().all(connection).await?;
    Ok(rows
        .into_iter()
        .map(|(id, product_id, generation)| Selected { id: ImageId(id), product_id: ProductId(product_id), generation })
        .collect())
}

/// Returns those of `chosen` that are still settled in the same generation.
/// The caller must have locked their products.
pub async fn still_at_rest(connection: &impl ConnectionTrait, chosen: &[Selected]) -> Result<Vec<Selected>, Error> {
    let rows: Vec<(i64, i32, String)> = Entity::find()
        .select_only()
        .columns([Column::Id, Column::Generation, Column::Status])
        .filter(Column::Id.is_in(padded(chosen.iter().map(|image| image.id.0))))
        .into_tuple()
        .all(connection)
        .await?;
    let at_rest = |image: &&Selected| {
        rows.iter().any(|(id, generation, status)| {
            *id == image.id.0
                && *generation == image.generation
                && ImageStatus::parse(status).is_some_and(ImageStatus::is_final)
        })
    };
    Ok(chosen.iter().filter(at_rest).copied().collect())
}

/// Returns the users and the sources of these images.
pub async fn origins(
    connection: &impl ConnectionTrait,
    images: &[ImageId],
) -> Result<HashMap<ImageId, (UserId, ImageSource)>, Error> {
    let mut origins = HashMap::with_capacity(images.len());
    for some in parts(images) {
        let ids = some.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let sql = format!(
            "SELECT images.id AS id, images.source_url AS source_url, images.source_key AS source_key,
                products.user_id AS user_id
             FROM images JOIN products ON products.id = images.product_id WHERE images.id IN ({ids})"
        );
        for row in query(connection, &sql, Vec::new()).await? {
            let (url, key) = (row.try_get("", "source_url")?, row.try_get("", "source_key")?);
            let id = row.try_get("", "id")?;
            let user_id = UserId::stored(row.try_get("", "user_id")?);
            origins.insert(ImageId(id), (user_id, source_of(id, url, key)?));
        }
    }
    Ok(origins)
}

/// Returns how many images match the selection.
pub async fn count(connection: &impl ConnectionTrait, selection: &Selection) -> Result<u64, Error> {
    use sea_orm::PaginatorTrait as _;
    Ok(selected(selection).count(connection).await?)
}

/// Starts a new generation of settled images: status pending, zero attempts.
pub async fn begin_run(connection: &impl ConnectionTrait, images: &[Selected], now: Timestamp) -> Result<(), Error> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(ImageStatus::Pending.as_str()))
        .col_expr(Column::Generation, Expr::col(Column::Generation).add(1))
        .col_expr(Column::Attempts, Expr::value(0))
        .col_expr(Column::UpdatedAt, Expr::value(now.0))
        .filter(Column::Id.is_in(padded(images.iter().map(|image| image.id.0))))
        .exec(connection)
        .await?;
    Ok(())
}

fn selected(selection: &Selection) -> Select<Entity> {
    let mut select =
        Entity::find().filter(Column::Status.is_in(selection.statuses.iter().map(|status| status.as_str())));
    if !selection.products.is_empty() {
        select = select.filter(Column::ProductId.is_in(padded(selection.products.iter().map(|id| id.0))));
    }
    if let Some(user_id) = &selection.user_id {
        let products = Query::select()
            .column(product::Column::Id)
            .from(product::Entity)
            .and_where(Expr::col(product::Column::UserId).eq(user_id.as_str()))
            .to_owned();
        select = select.filter(Column::ProductId.in_subquery(products));
    }
    if let Some(since) = selection.since {
        select = select.filter(Column::UpdatedAt.gte(since.0));
    }
    select
}
