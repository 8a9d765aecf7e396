//! `pm product update`: another name, description or price, more pictures or fewer, in one change.

use super::{
    failure::Failure,
    picture::{is_address, store},
    user::flag,
};
use crate::{
    catalog::{self, Catalog},
    cli::args::ProductUpdate,
    domain::{ImageId, ImageSource, ImagesPatch, PatchDraft, Product, ProductId, ProductPatch},
};

/// Changes the product; files are read up to `limit` bytes, and stored only if the product is there and all else is right.
pub(super) async fn run(change: ProductUpdate, catalog: &Catalog, limit: u64) -> Result<Product, Failure> {
    let id = ProductId(change.id);
    let mut add = Vec::with_capacity(change.add_images.len());
    // Before any file is stored for nothing.
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

/// `product_name` is `--name`, `urls[1]` is `--add-image` with what was given there.
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
    fn fields_are_spelled_as_flags() {
        let images = ["a.jpg".to_owned(), "http://10.0.0.1/b".to_owned()];
        assert_eq!(spell("product_name", &images), "--name");
        assert_eq!(spell("urls[1]", &images), "--add-image http://10.0.0.1/b:");
        assert_eq!(spell("product_images", &images), "--add-image");
        assert_eq!(spell("remove_image", &images), "--remove-image");
    }
}
