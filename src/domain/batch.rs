//! Several products in one request: splits the list into items that are parsed and checked separately.

use crate::domain::{AddressPolicy, Fields, Invalid, List, Malformed, NewProduct, UserId};

/// Maximum products per request.
pub const MAX_PRODUCTS: usize = List::MAX_ITEMS;

/// Parses a list of products, or an object with the field `products`.
/// Each item is a product or its errors. Products without a user get `subject` as their user.
///
/// # Errors
/// [`Malformed`] if `json` is neither. The inner error is another wrong field, or a list that is too long.
pub fn products_from_json(
    json: &[u8],
    policy: &AddressPolicy,
    subject: Option<&UserId>,
) -> Result<Result<Vec<Result<NewProduct, Invalid>>, Invalid>, Malformed> {
    let is_list = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let list: List = if is_list {
        serde_json::from_slice(json).map_err(|error| Malformed::unreadable(&error))?
    } else {
        let mut fields = Fields::parse(json, &["products"])?;
        let list = fields.list("products");
        let missing = list.is_none() && !fields.is_wrong("products");
        if missing {
            fields.error("products", "is required");
        }
        let errors = fields.finish();
        match Invalid::unless_empty(errors, || list.unwrap_or_default()) {
            Ok(list) => list,
            Err(invalid) => return Ok(Err(invalid)),
        }
    };
    if list.len > MAX_PRODUCTS {
        let message = format!("has {} products; at most {MAX_PRODUCTS} are allowed", list.len);
        return Ok(Err(Invalid::field("products", message)));
    }
    let read = |item: &str| match NewProduct::from_json_of(item.as_bytes(), policy, subject) {
        Ok(outcome) => outcome,
        Err(_) => Err(Invalid::field("product", "must be an object")),
    };
    Ok(Ok(list.items.iter().map(|item| read(item.get())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Result<Vec<Result<NewProduct, Invalid>>, Invalid>, Malformed> {
        products_from_json(json.as_bytes(), &AddressPolicy::default(), None)
    }

    #[test]
    fn a_list_and_an_object_around_it_are_the_same() {
        let list = r#"[{"user_id": "u", "product_name": "n", "product_price": 1}, {"user_id": "u"}, 5]"#;
        let one = read(list).expect("JSON").expect("a list");
        assert_eq!(one, read(&format!("{{\"products\": {list}}}")).expect("JSON").expect("a list"));
        assert_eq!(one.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn a_body_that_is_no_list_of_products_is_rejected_as_a_whole() {
        for malformed in ["", "[", "5", "\"x\""] {
            assert!(read(malformed).is_err(), "{malformed}");
        }
        for wrong in ["{}", r#"{"products": 5}"#, r#"{"products": [], "more": 1}"#] {
            assert!(read(wrong).expect("JSON").is_err(), "{wrong}");
        }
        let many = format!("[{}]", vec!["{}"; MAX_PRODUCTS + 1].join(","));
        assert!(read(&many).expect("JSON").is_err());
    }
}
