//! The shape of product bodies, which separates bodies of different programs and settings in a shared cache.

use crate::{
    api::Links,
    cache::BodyShape,
    catalog::products::read::Body,
    clock::Timestamp,
    code::ErrorCode,
    domain::{
        Facts, Image, ImageId, ImageSource, ImageStatus, Price, Product, ProductId, ProductStatus, Rendition, UserId,
    },
};

/// Version of the content of bodies.
/// Increment it when the body of some product changes but the body of the sample does not.
const VERSION: u8 = 1;

/// Returns the shape of product bodies with these links.
///
/// It is derived from the body of a fixed sample with every field, so a change of a field, its format, the entity tag
/// or a link changes the shape.
pub fn body_shape(links: &Links) -> BodyShape {
    let body = Body::of(&sample(), links).expect("the sample is a product");
    BodyShape::of(&[&[VERSION], &body[..]].concat())
}

fn sample() -> Product {
    let uploaded = Image {
        id: ImageId(2),
        position: 0,
        source: ImageSource::Stored("original/upload".into()),
        status: ImageStatus::Ready,
        attempts: 1,
        error: None,
        facts: Some(Facts {
            width: 4,
            height: 3,
            format: "jpeg".into(),
            bytes: 5,
            thumbhash: "AA==".into(),
            dominant_color: "#010203".into(),
            perceptual_hash: Some("0123456789abcdef".into()),
        }),
        renditions: vec![rendition("large", 4, 3), rendition("small", 2, 1)],
        warnings: vec!["truncated".into()],
        updated_at: Timestamp(1),
    };
    let linked = Image {
        id: ImageId(3),
        position: 1,
        source: ImageSource::Url("https://images.example/1.jpg?a=b".into()),
        status: ImageStatus::Failed,
        attempts: 2,
        error: Some((ErrorCode::NotFound, "not found".into())),
        facts: None,
        renditions: Vec::new(),
        warnings: Vec::new(),
        updated_at: Timestamp(1),
    };
    Product {
        id: ProductId(1),
        user_id: UserId::stored("user".into()),
        product_name: "name".into(),
        product_description: "description / \u{e9}".into(),
        product_price: Price::from_units(12_345),
        status: ProductStatus::Failed,
        images: vec![uploaded, linked],
        version: 6,
        created_at: Timestamp(1_000_001),
        updated_at: Timestamp(2_000_002),
    }
}

fn rendition(preset: &str, width: u32, height: u32) -> Rendition {
    Rendition { preset: preset.into(), format: "webp".into(), width, height, bytes: 7, key: format!("{preset}.webp") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_url_is_part_of_the_shape() {
        let shape = |url: Option<&str>| body_shape(&Links::new(url.map(str::to_owned)));
        let one = Some("https://one.example");
        assert_eq!(shape(one), shape(one));
        assert_ne!(shape(one), shape(Some("https://two.example")));
        assert_ne!(shape(one), shape(None));
    }
}
