//! Changes of a product: a JSON merge patch, and the resulting changes of its images.

use std::borrow::Cow;

use crate::domain::{
    AddressPolicy, FieldErrors, Fields, ImageId, ImageSource, Invalid, Malformed, NewProduct, Price, Product,
    product::{check_images, checked_description, checked_text},
};

/// An unchecked change; fields that are `None` stay the same.
#[derive(Clone, Debug, Default)]
pub struct PatchDraft {
    /// The new name.
    pub product_name: Option<String>,
    /// The new description.
    pub product_description: Option<String>,
    /// The digits of the new price.
    pub product_price: Option<String>,
    /// The change of the images.
    pub images: ImagesPatch,
}

/// Change of a product's images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImagesPatch {
    /// No change.
    #[default]
    Keep,
    /// Replace all images by these URLs; images whose URL is among them stay.
    Replace(Vec<String>),
    /// Remove some images and append others.
    Edit {
        /// Images to append.
        add: Vec<ImageSource>,
        /// Images to remove.
        remove: Vec<ImageId>,
    },
}

/// A change of a product with checked texts and price.
/// URLs can be checked only with the product's current images, so [`ProductPatch::plan`] reports all errors at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductPatch {
    /// The new name, trimmed.
    pub product_name: Option<String>,
    /// The new description.
    pub product_description: Option<String>,
    /// The new price.
    pub product_price: Option<Price>,
    images: ImagesPatch,
    identity: Identity,
    errors: FieldErrors,
}

/// The ids that the request states for the product.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Identity {
    /// The digits of the product's id.
    id: Option<String>,
    user_id: Option<String>,
}

/// A current image of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentImage {
    /// The id.
    pub id: ImageId,
    /// Its position among the product's images.
    pub position: i32,
    /// Its source.
    pub source: ImageSource,
    /// Its URL in `product_images`.
    pub link: String,
    /// The URL that earlier versions returned in `product_images` for an uploaded file.
    pub earlier_link: Option<String>,
}

impl PresentImage {
    /// Returns whether `product_images` has or had this URL for the image.
    fn is_at(&self, address: &str) -> bool {
        self.link == address || self.earlier_link.as_deref() == Some(address)
    }
}

/// The images of a product after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePlan {
    /// Images that stay, with their new positions.
    pub kept: Vec<(ImageId, i32)>,
    /// Images to remove.
    pub removed: Vec<ImageId>,
    /// Images to add, with their positions.
    pub added: Vec<(i32, ImageSource)>,
}

impl ProductPatch {
    const FIELDS: [&str; 6] =
        ["product_name", "product_description", "product_images", "product_price", "id", "user_id"];
    /// Fields in a response that a client may send back unchanged.
    const READ_ONLY: [&str; 6] =
        ["compressed_product_images", "status", "images", "version", "created_at", "updated_at"];

    /// Parses a JSON merge patch (RFC 7396).
    /// `null` empties the description and the images, and is an error for required fields. Read-only fields are
    /// ignored; `id` and `user_id` must be those of the product.
    ///
    /// # Errors
    /// [`Malformed`] if `json` is no object.
    pub fn from_json(json: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::parse_beside(json, &Self::FIELDS, &Self::READ_ONLY)?;
        for required in ["product_name", "product_price", "id", "user_id"] {
            if fields.null(required) {
                fields.error(required, "must not be null");
            }
        }
        let product_description = match fields.null("product_description") {
            true => Some(String::new()),
            false => fields.text("product_description"),
        };
        let images = match fields.null("product_images") {
            true => Some(Vec::new()),
            false => fields.texts("product_images"),
        };
        let draft = PatchDraft {
            product_name: fields.text("product_name"),
            product_description,
            product_price: fields.number("product_price"),
            images: images.map_or(ImagesPatch::Keep, ImagesPatch::Replace),
        };
        let identity = Identity { id: fields.number("id"), user_id: fields.text("user_id") };
        Ok(Self { identity, ..Self::checked(draft, fields.finish()) })
    }

    /// Adds errors if `id` or `user_id` is not the product's.
    pub fn held_against(&self, product: &Product) -> Cow<'_, Self> {
        let Identity { id, user_id } = &self.identity;
        let other_id = id.as_ref().is_some_and(|id| *id != product.id.to_string());
        let other_user = user_id.as_ref().is_some_and(|user_id| user_id != product.user_id.as_str());
        if !other_id && !other_user {
            return Cow::Borrowed(self);
        }
        let mut held = self.clone();
        for (field, is_other) in [("id", other_id), ("user_id", other_user)] {
            if is_other {
                held.errors.push(field, "cannot be changed; omit it or send the current value");
            }
        }
        Cow::Owned(held)
    }

    /// Parses the URLs of more images: `{"url": …}` or `{"urls": […]}`.
    ///
    /// # Errors
    /// [`Malformed`] if `json` is no object.
    pub fn more_images_from_json(json: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::parse(json, &["url", "urls"])?;
        let one = fields.text("url");
        let several = fields.texts("urls");
        let mut errors = fields.finish();
        match (&one, &several) {
            (Some(_), Some(_)) => errors.push("urls", "cannot be combined with url"),
            // An invalid field does not count as missing.
            (None, None) if errors.is_empty() => errors.push("url", "is required"),
            (None, Some(none)) if none.is_empty() && errors.is_empty() => errors.push("urls", "must not be empty"),
            _ => {}
        }
        let add = one.into_iter().chain(several.unwrap_or_default()).map(ImageSource::Url).collect();
        Ok(Self { images: ImagesPatch::Edit { add, remove: Vec::new() }, errors, ..Self::default() })
    }

    /// Checks a draft.
    pub fn parse(draft: PatchDraft) -> Self {
        Self::checked(draft, FieldErrors::default())
    }

    /// Creates a change of images alone.
    pub fn of_images(images: ImagesPatch) -> Self {
        Self { images, ..Self::default() }
    }

    fn checked(draft: PatchDraft, mut errors: FieldErrors) -> Self {
        let mut note = |field: &str, message: String| errors.push(field, message);
        let name = draft.product_name.map(|text| checked_text(&text, 1, NewProduct::MAX_NAME_CHARS));
        let product_name = name.and_then(|checked| checked.map_err(|message| note("product_name", message)).ok());
        let description = draft.product_description.map(checked_description);
        let product_description =
            description.and_then(|checked| checked.map_err(|message| note("product_description", message)).ok());
        let price = draft.product_price.map(|digits| Price::parse(&digits));
        let product_price = price.and_then(|checked| checked.map_err(|message| note("product_price", message)).ok());
        let identity = Identity::default();
        Self { product_name, product_description, product_price, images: draft.images, identity, errors }
    }

    /// Computes the images after this change; `present` are the current ones by position.
    /// A URL that the product already has keeps the image of that URL, once per occurrence, and is not checked again.
    ///
    /// # Errors
    /// [`Invalid`] with all errors of the change.
    pub fn plan(&self, present: &[PresentImage], policy: &AddressPolicy) -> Result<ImagePlan, Invalid> {
        let mut errors = self.errors.clone();
        let plan = match &self.images {
            ImagesPatch::Keep => {
                ImagePlan { kept: in_order(present.iter().map(|image| image.id)), ..ImagePlan::default() }
            }
            ImagesPatch::Replace(addresses) => replace(present, addresses, policy, &mut errors),
            ImagesPatch::Edit { add, remove } => edit(present, add, remove, policy, &mut errors),
        };
        Invalid::unless_empty(errors, || plan)
    }

    /// Returns whether the product's texts and price stay the same.
    pub fn leaves_texts(&self, product: &Product) -> bool {
        let name_stays = self.product_name.as_ref().is_none_or(|name| *name == product.product_name);
        let description = self.product_description.as_ref();
        let description_stays = description.is_none_or(|description| *description == product.product_description);
        name_stays && description_stays && self.product_price.is_none_or(|price| price == product.product_price)
    }

    /// Returns the files that were uploaded for this change.
    pub fn uploaded(&self) -> &[ImageSource] {
        match &self.images {
            ImagesPatch::Edit { add, .. } => add,
            _ => &[],
        }
    }

    /// Returns the images that this change would remove.
    pub fn removes(&self, present: &[PresentImage], policy: &AddressPolicy) -> Vec<ImageId> {
        self.plan(present, policy).map(|plan| plan.removed).unwrap_or_default()
    }
}

impl ImagePlan {
    /// Returns whether the images stay the same.
    pub fn changes_nothing(&self, present: &[PresentImage]) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.moved(present).is_empty()
    }

    /// Returns the images that stay but get another position.
    pub fn moved(&self, present: &[PresentImage]) -> Vec<(ImageId, i32)> {
        let stays = |(id, position): &(ImageId, i32)| {
            present.iter().any(|image| image.id == *id && image.position == *position)
        };
        self.kept.iter().filter(|place| !stays(place)).copied().collect()
    }
}

fn in_order(ids: impl Iterator<Item = ImageId>) -> Vec<(ImageId, i32)> {
    ids.zip(0..).collect()
}

fn replace(
    present: &[PresentImage],
    addresses: &[String],
    policy: &AddressPolicy,
    errors: &mut FieldErrors,
) -> ImagePlan {
    let mut left: Vec<_> = present.iter().collect();
    let mut plan = ImagePlan::default();
    if addresses.len() > NewProduct::MAX_IMAGES {
        errors.push("product_images", too_many(addresses.len()));
    }
    for (address, (index, position)) in addresses.iter().zip((0_usize..).zip(0..)) {
        if let Some(place) = left.iter().position(|image| image.is_at(address)) {
            plan.kept.push((left.remove(place).id, position));
            continue;
        }
        // An additional occurrence of a link to an uploaded file adds the same file again.
        let uploaded =
            present.iter().find(|image| image.is_at(address) && matches!(image.source, ImageSource::Stored(_)));
        let source = match uploaded {
            Some(image) => image.source.clone(),
            None => ImageSource::Url(address.clone()),
        };
        if let ImageSource::Url(url) = &source
            && let Err(refusal) = policy.check_url(url)
        {
            errors.push(format!("product_images[{index}]"), refusal.to_string());
        }
        plan.added.push((position, source));
    }
    plan.removed = left.into_iter().map(|image| image.id).collect();
    plan
}

fn edit(
    present: &[PresentImage],
    add: &[ImageSource],
    remove: &[ImageId],
    policy: &AddressPolicy,
    errors: &mut FieldErrors,
) -> ImagePlan {
    let (removed, stay): (Vec<_>, Vec<_>) = present.iter().map(|image| image.id).partition(|id| remove.contains(id));
    for id in remove.iter().filter(|id| !removed.contains(id)) {
        errors.push("remove_image", format!("{id} is not an image of this product"));
    }
    if stay.len() + add.len() > NewProduct::MAX_IMAGES {
        errors.push("product_images", too_many(stay.len() + add.len()));
    }
    check_images("urls", &add[..add.len().min(NewProduct::MAX_IMAGES)], policy, errors);
    let kept = in_order(stay.into_iter());
    let added =
        (kept.len()..).zip(add).filter_map(|(place, source)| Some((i32::try_from(place).ok()?, source.clone())));
    ImagePlan { removed, added: added.collect(), kept }
}

fn too_many(count: usize) -> String {
    format!("has {count} images; at most {} are allowed", NewProduct::MAX_IMAGES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        domain::{ProductId, ProductStatus, UserId},
    };

    fn present(links: &[&str]) -> Vec<PresentImage> {
        let image = |(id, link): (i64, &&str)| {
            let source = match link.strip_suffix("/original") {
                Some(key) => ImageSource::Stored(key.into()),
                None => ImageSource::Url((*link).into()),
            };
            let earlier_link = link.strip_suffix("/original").map(|key| format!("/images/{key}"));
            let position = i32::try_from(id - 1).expect("few images");
            PresentImage { id: ImageId(id), position, source, link: (*link).into(), earlier_link }
        };
        (1..).zip(links).map(image).collect()
    }

    fn plan(before: &[&str], after: &str) -> Result<ImagePlan, Vec<String>> {
        let patch = ProductPatch::from_json(format!("{{\"product_images\": {after}}}").as_bytes()).expect("an object");
        let fields = |invalid: Invalid| invalid.errors.listed().iter().map(|error| error.field.clone()).collect();
        patch.plan(&present(before), &AddressPolicy::default()).map_err(fields)
    }

    #[test]
    fn images_whose_url_stays_keep_their_id_and_get_a_new_position() {
        let before = ["http://a.example/1", "http://a.example/2", "http://a.example/1"];
        let plan =
            plan(&before, r#"["http://a.example/3", "http://a.example/1", "http://a.example/2"]"#).expect("right");
        assert_eq!(plan.kept, [(ImageId(1), 1), (ImageId(2), 2)]);
        assert_eq!(plan.removed, [ImageId(3)], "a URL that occurs once keeps one image");
        assert_eq!(plan.added, [(0, ImageSource::Url("http://a.example/3".into()))]);
    }

    #[test]
    fn a_repeated_link_to_an_uploaded_file_adds_the_file_again() {
        let after = plan(&["a.jpg/original"], r#"["a.jpg/original", "a.jpg/original"]"#).expect("right");
        assert_eq!(after.kept, [(ImageId(1), 0)]);
        assert_eq!(after.added, [(1, ImageSource::Stored("a.jpg".into()))]);
        assert_eq!(plan(&[], r#"["a.jpg/original"]"#), Err(vec!["product_images[0]".to_owned()]));
    }

    #[test]
    fn a_link_of_an_earlier_version_means_the_same_uploaded_file() {
        let before = ["a.jpg/original", "b.jpg/original"];
        let after = plan(&before, r#"["/images/b.jpg", "a.jpg/original", "/images/a.jpg"]"#).expect("right");
        assert_eq!(after.kept, [(ImageId(2), 0), (ImageId(1), 1)]);
        assert_eq!((after.added, after.removed), (vec![(2, ImageSource::Stored("a.jpg".into()))], vec![]));
        assert!(plan(&before, r#"["/images/c.jpg"]"#).is_err());
    }

    #[test]
    fn a_url_of_a_current_image_is_not_checked_again() {
        assert!(plan(&["http://10.0.0.1/a"], r#"["http://10.0.0.1/a"]"#).is_ok());
        assert!(plan(&[], r#"["http://10.0.0.1/a"]"#).is_err());
    }

    #[test]
    fn all_errors_of_a_change_are_reported_together() {
        let json = br#"{"product_name": null, "product_price": "1", "product_images": ["ftp://a"], "user_id": "u",
            "product_description": 5}"#;
        let patch = ProductPatch::from_json(json).expect("an object");
        let invalid = patch.held_against(&product("other")).plan(&[], &AddressPolicy::default()).expect_err("wrong");
        let mut fields: Vec<_> = invalid.errors.listed().iter().map(|error| error.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["product_description", "product_images[0]", "product_name", "product_price", "user_id"]);
    }

    fn product(user_id: &str) -> Product {
        Product {
            id: ProductId(7),
            user_id: UserId::stored(user_id.to_owned()),
            product_name: "Lamp".into(),
            product_description: String::new(),
            product_price: Price::from_units(0),
            status: ProductStatus::Ready,
            images: Vec::new(),
            version: 1,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn an_id_and_a_user_may_be_sent_back_but_not_changed() {
        let wrong = |json: &str| {
            let patch = ProductPatch::from_json(json.as_bytes()).expect("an object");
            let outcome = patch.held_against(&product("u")).plan(&[], &AddressPolicy::default());
            let fields = |invalid: Invalid| invalid.errors.listed().iter().map(|error| error.field.clone()).collect();
            outcome.map_or_else(fields, |_| Vec::<String>::new())
        };
        assert!(wrong(r#"{"id": 7, "user_id": "u", "version": 9, "updated_at": null}"#).is_empty());
        assert_eq!(wrong(r#"{"id": 8, "user_id": "v"}"#), ["id", "user_id"]);
        assert_eq!(wrong(r#"{"id": "7", "user_id": null, "colour": 1}"#), ["user_id", "id", "colour"]);
    }

    #[test]
    fn null_empties_optional_fields() {
        let json = br#"{"product_description": null, "product_images": null}"#;
        let patch = ProductPatch::from_json(json).expect("an object");
        assert_eq!(patch.product_description.as_deref(), Some(""));
        let plan = patch.plan(&present(&["http://a.example/1"]), &AddressPolicy::default()).expect("right");
        assert_eq!(plan.removed, [ImageId(1)]);
    }

    #[test]
    fn more_images_are_given_by_url_or_urls() {
        let fields = |json: &str| {
            let patch = ProductPatch::more_images_from_json(json.as_bytes()).expect("an object");
            match patch.plan(&[], &AddressPolicy::default()) {
                Ok(plan) => vec![plan.added.len().to_string()],
                Err(invalid) => invalid.errors.listed().iter().map(|error| error.field.clone()).collect(),
            }
        };
        assert_eq!(fields(r#"{"url": "http://a.example/1"}"#), ["1"]);
        assert_eq!(fields(r#"{"urls": ["http://a.example/1", "http://a.example/2"]}"#), ["2"]);
        assert_eq!(fields("{}"), ["url"]);
        assert_eq!(fields(r#"{"url": 5}"#), ["url"]);
        assert_eq!(fields(r#"{"urls": []}"#), ["urls"]);
        assert_eq!(fields(r#"{"urls": ["ftp://a"], "colour": 1}"#), ["colour", "urls[0]"]);
        assert_eq!(fields(r#"{"url": "http://a.example/1", "urls": ["http://a.example/1"]}"#), ["urls"]);
    }
}
