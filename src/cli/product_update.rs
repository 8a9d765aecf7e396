//! `pm product update`: changes name, description, price and images in one transaction.

use super::{
    failure::Failure,
    image_source::{is_address, store},
    user::flag,
};
use crate::{
    catalog::{self, Catalog},
    cli::args::ProductUpdate,
    domain::{ImageId, ImageSource, ImagesPatch, PatchDraft, Product, ProductId, ProductPatch},
};

/// Updates the product.
///
/// Reads files of up to `limit` bytes, and stores them only if the product exists.
pub(super) async fn run(change: ProductUpdate, catalog: &Catalog, limit: u64) -> Result<Product, Failure> {
    let id = ProductId(change.id);
    let mut add = Vec::with_capacity(change.add_images.len());
    // Fails before any file is stored if the product does not exist.
    catalog.product(id).await?;
    for image in &change.add_images {
        add.push(match is_address(image) {
            true => ImageSource::Url(image.clone()),
            false => store("--add-image", image, catalog, limit).await?,
        });
    }
    let images = match add.is_empty() && change.remove_images.is_empty() {
        true => ImagesPatch::Keep,
        false => ImagesPatch::Edit { add, remove: change.remove_images.iter().copied().map(ImageId).collect() },
    };
    let draft = PatchDraft {
        product_name: change.name,
        product_description: change.description,
        product_price: change.price,
        images,
    };
    let updated = catalog.update(id, ProductPatch::parse(draft), None, None, None).await;
    let updated = updated.map_err(|error| match error {
        catalog::Error::Invalid(invalid) => Failure::invalid(&invalid, |field| spell(field, &change.add_images)),
        error => error.into(),
    })?;
    Ok(updated.product)
}

/// Maps a field to its flag: `product_name` to `--name`, `urls[1]` to `--add-image` with its value.
fn spell(field: &str, images: &[String]) -> String {
    let place = field.strip_prefix("urls[").and_then(|rest| rest.strip_suffix(']')?.parse::<usize>().ok());
    match (place.and_then(|place| images.get(place)), field) {
        (Some(image), _) => format!("--add-image {image}:"),
        (None, "product_images") => "--add-image".into(),
        (None, field) => flag(field.strip_prefix("product_").unwrap_or(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_reported_as_flags() {
        let images = ["a.jpg".to_owned(), "http://10.0.0.1/b".to_owned()];
        assert_eq!(spell("product_name", &images), "--name");
        assert_eq!(spell("urls[1]", &images), "--add-image http://10.0.0.1/b:");
        assert_eq!(spell("product_images", &images), "--add-image");
        assert_eq!(spell("remove_image", &images), "--remove-image");
    }
}
