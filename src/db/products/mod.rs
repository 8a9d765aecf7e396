//! The table of products.

pub mod idempotency;
pub mod images;
pub mod listing;
pub mod owner;
pub mod removals;
pub mod renditions;
pub mod terms;
pub mod touch;
pub mod variants;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use unicode_normalization::UnicodeNormalization as _;

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::product::{ActiveModel, Column, Entity, Model},
        lengths::padded,
    },
    domain::{NewProduct, Price, Product, ProductId, ProductPatch, ProductStatus, UserId},
};

/// Inserts a product without its images, and returns its id.
///
/// # Errors
/// [`Error::MissingReference`] if its user does not exist.
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
    let id = ProductId(inserted.last_insert_id);
    terms::set(connection, id, &new.product_name, &new.product_description).await?;
    Ok(id)
}

/// Returns the product with its images.
pub async fn find(connection: &impl ConnectionTrait, id: ProductId) -> Result<Option<Product>, Error> {
    let Some(row) = Entity::find_by_id(id.0).one(connection).await? else {
        return Ok(None);
    };
    Ok(with_images(connection, vec![row]).await?.pop())
}

/// Returns those of `ids` that exist.
pub async fn existing(
    connection: &impl ConnectionTrait,
    ids: &[ProductId],
) -> Result<std::collections::BTreeSet<ProductId>, Error> {
    let found: Vec<i64> = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Id.is_in(padded(ids.iter().map(|id| id.0))))
        .into_tuple()
        .all(connection)
        .await?;
    Ok(found.into_iter().map(ProductId).collect())
}

/// Updates the fields that `patch` contains: name, description and price.
/// `product` must be read in this transaction, and its row locked by [`lock`].
pub async fn update(connection: &impl ConnectionTrait, product: &Product, patch: &ProductPatch) -> Result<(), Error> {
    let mut row = ActiveModel::default();
    if let Some(name) = &patch.product_name {
        row.product_name = Set(name.clone());
        row.product_name_folded = Set(fold(name));
    }
    if let Some(description) = &patch.product_description {
        row.product_description = Set(description.clone());
    }
    if let Some(price) = patch.product_price {
        row.product_price = Set(price.units());
    }
    Entity::update_many().set(row).filter(Column::Id.eq(product.id.0)).exec(connection).await?;
    let name = patch.product_name.as_ref().unwrap_or(&product.product_name);
    let description = patch.product_description.as_ref().unwrap_or(&product.product_description);
    terms::set(connection, product.id, name, description).await
}

/// Locks the rows of products until the transaction ends.
/// So one transaction at a time computes the values that depend on their images. SQLite has one writer anyway.
pub async fn lock(connection: &impl ConnectionTrait, ids: &[ProductId]) -> Result<(), Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let _: Vec<i64> = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::Id.is_in(padded(ids.iter().map(|id| id.0))))
            .order_by_asc(Column::Id)
            .lock_exclusive()
            .into_tuple()
            .all(connection)
            .await?;
    }
    Ok(())
}

/// Folds a name for comparison: ignores case and composes accents (NFC).
/// It folds letter by letter: with a different sigma at the end of a word, `ΑΣΑ` would not contain `ΑΣ`.
pub(super) fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).nfc().collect()
}

/// Returns the spellings in which a folded part of a name may be stored.
/// These are the composed form and the decomposed one, which earlier versions stored if the client sent it.
pub(super) fn spellings(piece: &str) -> Vec<String> {
    let (composed, decomposed) = (fold(piece), fold(piece).nfd().collect::<String>());
    if composed == decomposed { vec![composed] } else { vec![composed, decomposed] }
}

/// Loads the images of a page of products with two more statements.
pub(super) async fn with_images(connection: &impl ConnectionTrait, rows: Vec<Model>) -> Result<Vec<Product>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_folds_alike_at_any_position_in_a_word() {
        assert!(fold("ΑΣΑ").contains(&fold("ΑΣ")));
        assert_eq!(fold("ΟΔΟΣ"), fold("οδοσ"));
        assert_eq!(fold("İÇ É"), "i\u{307}ç é");
    }

    #[test]
    fn an_accent_folds_alike_composed_and_on_its_own() {
        assert_eq!(fold("CAFE\u{301}"), "caf\u{e9}");
        assert_eq!(spellings("Caf\u{e9}"), ["caf\u{e9}", "cafe\u{301}"]);
        assert_eq!(spellings("cafe\u{301}"), spellings("caf\u{e9}"));
        assert_eq!(spellings("Lamp"), ["lamp"]);
    }
}
