//! Output rows of products.

use serde::{Serialize, Serializer};

use super::output::{Row, seconds};
use crate::{
    api::{Links, ProductBody},
    domain::{Image, ImageSource, ImageStatus, Product},
};

/// A product and the builder of its links.
pub(super) struct ProductRow<'a> {
    product: &'a Product,
    links: &'a Links,
}

impl<'a> ProductRow<'a> {
    pub(super) fn new(product: &'a Product, links: &'a Links) -> Self {
        Self { product, links }
    }

    /// Returns the columns and rows of the table of its images.
    pub(super) fn images(&self) -> (&'static [&'static str], Vec<Vec<String>>) {
        let rows = self.product.images.iter().map(|image| self.image(image)).collect();
        (&["image", "status", "source", "size", "renditions or error"], rows)
    }

    fn image(&self, image: &Image) -> Vec<String> {
        let size = image.facts.as_ref().map(|facts| format!("{}x{} {}", facts.width, facts.height, facts.format));
        let outcome = match &image.error {
            Some((code, message)) => format!("{code}: {message}"),
            None => {
                image.renditions.iter().map(|r| format!("{} {}", r.preset, r.format)).collect::<Vec<_>>().join(", ")
            }
        };
        vec![
            image.id.to_string(),
            image.status.as_str().to_owned(),
            self.source(image),
            size.unwrap_or_default(),
            outcome,
        ]
    }

    fn source(&self, image: &Image) -> String {
        match &image.source {
            ImageSource::Url(url) => url.clone(),
            ImageSource::Stored(_) => self.links.original(self.product.id, image.id),
        }
    }
}

/// Serializes the API's JSON.
impl Serialize for ProductRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ProductBody::new(self.product, self.links).serialize(serializer)
    }
}

impl Row for ProductRow<'_> {
    const COLUMNS: &'static [&'static str] = &["id", "name", "price", "user", "status", "images", "updated"];
    const FIELDS: &'static [&'static str] = &[
        "id",
        "user_id",
        "product_name",
        "product_description",
        "product_images",
        "product_price",
        "compressed_product_images",
        "status",
        "version",
        "created_at",
        "updated_at",
    ];

    fn id(&self) -> String {
        self.product.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let product = self.product;
        let ready = product.images.iter().filter(|image| image.status == ImageStatus::Ready).count();
        vec![
            product.id.to_string(),
            product.product_name.clone(),
            product.product_price.to_string(),
            product.user_id.to_string(),
            product.status.as_str().to_owned(),
            format!("{ready}/{}", product.images.len()),
            seconds(product.updated_at),
        ]
    }

    /// Returns the CSV fields; spaces separate the URLs of a list.
    fn fields(&self) -> Vec<String> {
        let product = self.product;
        let largest = product
            .images
            .iter()
            .filter(|image| image.status == ImageStatus::Ready)
            .filter_map(|image| image.renditions.first());
        let sources: Vec<_> = product.images.iter().map(|image| self.source(image)).collect();
        let compressed: Vec<_> = largest.map(|rendition| self.links.image(&rendition.key)).collect();
        vec![
            product.id.to_string(),
            product.user_id.to_string(),
            product.product_name.clone(),
            product.product_description.clone(),
            sources.join(" "),
            product.product_price.to_string(),
            compressed.join(" "),
            product.status.as_str().to_owned(),
            product.version.to_string(),
            product.created_at.to_string(),
            product.updated_at.to_string(),
        ]
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let product = self.product;
        let mut details = vec![
            ("id", product.id.to_string()),
            ("user", product.user_id.to_string()),
            ("name", product.product_name.clone()),
            ("price", product.product_price.to_string()),
            ("status", product.status.as_str().to_owned()),
            ("version", product.version.to_string()),
            ("created", seconds(product.created_at)),
            ("updated", seconds(product.updated_at)),
        ];
        if !product.product_description.is_empty() {
            details.insert(3, ("description", product.product_description.clone()));
        }
        details
    }
}
