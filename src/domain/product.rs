//! Products: parsing and checking of requests, and the stored form.

use crate::{
    clock::Timestamp,
    domain::{
        AddressPolicy, FieldErrors, Fields, Image, ImageSource, ImageStatus, Invalid, Malformed, Price, ProductId,
        UserId,
    },
};

/// A product with its images.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// The id.
    pub id: ProductId,
    /// The owner.
    pub user_id: UserId,
    /// 1 to 200 characters.
    pub product_name: String,
    /// Up to 10,000 characters.
    pub product_description: String,
    /// The price.
    pub product_price: Price,
    /// Derived from the images' statuses.
    pub status: ProductStatus,
    /// The images by position.
    pub images: Vec<Image>,
    /// Incremented by each change that readers can see.
    pub version: i64,
    /// The creation time.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
}

/// Status of a product, derived from its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ProductStatus {
    /// At least one image is pending or processing.
    Processing,
    /// Every image is ready, or there are none.
    Ready,
    /// No image is pending or processing, and at least one failed.
    Failed,
}

impl ProductStatus {
    /// All statuses.
    pub const ALL: [Self; 3] = [Self::Processing, Self::Ready, Self::Failed];

    /// Returns the status's name in responses and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    /// Parses a status.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Derives the status of a product from those of its images.
    pub fn of(images: impl IntoIterator<Item = ImageStatus>) -> Self {
        let mut failed = false;
        for status in images {
            match status {
                ImageStatus::Pending | ImageStatus::Processing => return Self::Processing,
                ImageStatus::Failed => failed = true,
                ImageStatus::Ready => {}
            }
        }
        if failed { Self::Failed } else { Self::Ready }
    }
}

/// An unchecked product of a request.
#[derive(Clone, Debug, Default)]
pub struct ProductDraft {
    /// The owner.
    pub user_id: Option<String>,
    /// The name.
    pub product_name: Option<String>,
    /// The description.
    pub product_description: Option<String>,
    /// The images.
    pub product_images: Vec<ImageSource>,
    /// The digits of the price.
    pub product_price: Option<String>,
}

/// A checked product to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProduct {
    /// The owner.
    pub user_id: UserId,
    /// The name, trimmed.
    pub product_name: String,
    /// The description; empty if absent.
    pub product_description: String,
    /// The images in order.
    pub product_images: Vec<ImageSource>,
    /// The price.
    pub product_price: Price,
}

impl NewProduct {
    /// Maximum images per product.
    pub const MAX_IMAGES: usize = 32;
    /// Maximum length of a name in characters.
    pub const MAX_NAME_CHARS: usize = 200;
    /// Maximum length of a description in characters.
    pub const MAX_DESCRIPTION_CHARS: usize = 10_000;

    const FIELDS: [&str; 5] = ["user_id", "product_name", "product_description", "product_images", "product_price"];

    /// Parses a product from a request body.
    ///
    /// # Errors
    /// [`Malformed`] if `json` is no object; [`Invalid`], the inner error, with all invalid fields.
    pub fn from_json(json: &[u8], policy: &AddressPolicy) -> Result<Result<Self, Invalid>, Malformed> {
        Self::from_json_of(json, policy, None)
    }

    /// Like [`from_json`](Self::from_json), but `caller` is the default owner.
    ///
    /// # Errors
    /// See [`from_json`](Self::from_json).
    pub fn from_json_of(
        json: &[u8],
        policy: &AddressPolicy,
        caller: Option<&UserId>,
    ) -> Result<Result<Self, Invalid>, Malformed> {
        let mut fields = Fields::parse(json, &Self::FIELDS)?;
        let draft = ProductDraft {
            user_id: fields.text_or("user_id", caller.map(UserId::as_str)),
            product_name: fields.text("product_name"),
            product_description: fields.text("product_description"),
            product_images: fields
                .texts("product_images")
                .unwrap_or_default()
                .into_iter()
                .map(ImageSource::Url)
                .collect(),
            product_price: fields.number("product_price"),
        };
        Ok(Self::checked(draft, fields.finish(), policy))
    }

    /// Checks a draft; `policy` decides which URLs are allowed.
    ///
    /// # Errors
    /// [`Invalid`] with all invalid fields.
    pub fn parse(draft: ProductDraft, policy: &AddressPolicy) -> Result<Self, Invalid> {
        Self::checked(draft, FieldErrors::default(), policy)
    }

    fn checked(draft: ProductDraft, mut errors: FieldErrors, policy: &AddressPolicy) -> Result<Self, Invalid> {
        check_images("product_images", &draft.product_images, policy, &mut errors);
        let mut required = |field: &'static str, value: Option<String>| {
            let missing = value.is_none() && !errors.name(field);
            if missing {
                errors.push(field, "is required");
            }
            value
        };
        let user_id = required("user_id", draft.user_id);
        let product_name = required("product_name", draft.product_name);
        let product_price = required("product_price", draft.product_price);

        let mut note = |field: &str, message: String| errors.push(field, message);
        let user_id = user_id.and_then(|text| UserId::parse(&text).map_err(|m| note("user_id", m)).ok());
        let product_name = product_name
            .and_then(|text| checked_text(&text, 1, Self::MAX_NAME_CHARS).map_err(|m| note("product_name", m)).ok());
        let product_description = checked_description(draft.product_description.unwrap_or_default())
            .map_err(|m| note("product_description", m))
            .ok();
        let product_price =
            product_price.and_then(|digits| Price::parse(&digits).map_err(|m| note("product_price", m)).ok());

        match (user_id, product_name, product_description, product_price) {
            (Some(user_id), Some(product_name), Some(product_description), Some(product_price)) => {
                let product_images = draft.product_images;
                Invalid::unless_empty(errors, || Self {
                    user_id,
                    product_name,
                    product_description,
                    product_images,
                    product_price,
                })
            }
            _ => Err(Invalid { errors }),
        }
    }
}

pub(super) fn check_images(field: &str, images: &[ImageSource], policy: &AddressPolicy, errors: &mut FieldErrors) {
    if images.len() > NewProduct::MAX_IMAGES {
        let message = format!("has {} images; at most {} are allowed", images.len(), NewProduct::MAX_IMAGES);
        errors.push(field, message);
    }
    for (index, image) in images.iter().enumerate() {
        if let ImageSource::Url(url) = image
            && let Err(refusal) = policy.check_url(url)
        {
            errors.push(format!("{field}[{index}]"), refusal.to_string());
        }
    }
}

/// Returns the trimmed text.
/// It must have `least` to `most` characters, and no NUL, which PostgreSQL cannot store.
pub(super) fn checked_text(text: &str, least: usize, most: usize) -> Result<String, String> {
    let trimmed = text.trim();
    let chars = trimmed.chars().count();
    if chars < least {
        let message =
            if chars == 0 { "must not be empty".into() } else { format!("must have at least {least} characters") };
        return Err(message);
    }
    if chars > most {
        return Err(format!("has {chars} characters; at most {most} are allowed"));
    }
    if trimmed.contains('\0') {
        return Err("must not contain the NUL character".into());
    }
    Ok(trimmed.to_owned())
}

/// Checks a description, which is not trimmed: line breaks and outer spaces are part of it.
pub(super) fn checked_description(text: String) -> Result<String, String> {
    let chars = text.chars().count();
    if chars > NewProduct::MAX_DESCRIPTION_CHARS {
        return Err(format!("has {chars} characters; at most {} are allowed", NewProduct::MAX_DESCRIPTION_CHARS));
    }
    if text.contains('\0') {
        return Err("must not contain the NUL character".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(json: &str) -> Vec<String> {
        match NewProduct::from_json(json.as_bytes(), &AddressPolicy::default()).expect("an object") {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.errors.listed().iter().map(|error| error.field.clone()).collect(),
        }
    }

    #[test]
    fn a_usual_product_is_accepted() {
        let json = r#"{"user_id": "1234-5678-9012", "product_name": " Sample Product ", "product_description": "A test product.",
            "product_images": ["https://example.com/image1.jpg"], "product_price": 100.0}"#;
        let product = NewProduct::from_json(json.as_bytes(), &AddressPolicy::default()).expect("JSON").expect("valid");
        assert_eq!(product.product_name, "Sample Product");
        assert_eq!(product.product_price.to_string(), "100.0");
        assert_eq!(product.product_images.len(), 1);
    }

    #[test]
    fn all_invalid_fields_are_reported_together() {
        let json = r#"{"user_id": "", "product_name": "  ", "product_images": ["ftp://example.com/a", "http://10.0.0.1/b"],
            "product_price": -1, "colour": "red"}"#;
        let mut errors = errors_of(json);
        errors.sort();
        assert_eq!(
            errors,
            ["colour", "product_images[0]", "product_images[1]", "product_name", "product_price", "user_id"]
        );
    }

    #[test]
    fn a_mistyped_field_is_reported_once() {
        assert_eq!(errors_of(r#"{"user_id": "u", "product_name": "n", "product_price": "12"}"#), ["product_price"]);
        assert_eq!(errors_of("{}"), ["user_id", "product_name", "product_price"]);
    }

    #[test]
    fn a_products_status_is_derived_from_its_images() {
        use ImageStatus::{Failed, Pending, Processing, Ready};
        assert_eq!(ProductStatus::of([]), ProductStatus::Ready);
        assert_eq!(ProductStatus::of([Ready, Ready]), ProductStatus::Ready);
        assert_eq!(ProductStatus::of([Ready, Failed]), ProductStatus::Failed);
        assert_eq!(ProductStatus::of([Failed, Pending]), ProductStatus::Processing);
        assert_eq!(ProductStatus::of([Processing]), ProductStatus::Processing);
    }
}
