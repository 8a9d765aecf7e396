//! Fuzzes client input: JSON bodies of products and users, drafts from the command line, and list queries. Nothing
//! panics, and accepted input keeps every documented limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pm::{
    domain::{
        AddressPolicy, ImageSource, NewProduct, NewUser, Price, ProductDraft, ProductQuery, UserDraft, UserId,
        UserQuery,
    },
    http::query_parameters,
};
use pm_fuzz::write_seeds;
use serde_json::json;

/// The first byte of an input selects its parser.
const KINDS: u8 = 4;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let product = r#"{"user_id": "1234-5678-9012", "product_name": " Sample \ud83d\ude00 ", "product_description": "A\ntest.",
        "product_images": ["https://example.com/1.jpg", "http://1.1.1.1:8080/a?b#c"], "product_price": 19.90}"#;
    let user = r#"{"id": "u/1", "name": "Ann", "email": "ann@example.com"}"#;
    let query = "user_id=1234&min_price=1e0&max_price=20.5&name=caf%C3%A9+au&status=ready&sort=-product_price&limit=5";
    let users = "limit=100&cursor=dToxMjM0";
    let all =
        [("product", 0, product), ("user", 1, user), ("query", 2, query), ("users", 2, users), ("draft", 3, query)];
    all.map(|(name, kind, text)| (name.to_owned(), [&[kind], text.as_bytes()].concat())).to_vec()
}

fn is_text(text: &str, most: usize) -> bool {
    text.trim() == text && (1..=most).contains(&text.chars().count()) && !text.contains('\0')
}

fn is_user_id(id: &UserId) -> bool {
    let text = id.as_str();
    (1..=64).contains(&text.chars().count()) && !text.trim().is_empty() && !text.chars().any(char::is_control)
}

fn is_price(price: Price) -> bool {
    (0..=9_999_999_999_999_999).contains(&price.units()) && Price::parse(&price.to_string()) == Ok(price)
}

fn check_product(product: &NewProduct) {
    assert!(is_user_id(&product.user_id), "{product:?}");
    assert!(is_text(&product.product_name, 200), "{product:?}");
    let description = &product.product_description;
    assert!(description.chars().count() <= 10_000 && !description.contains('\0'), "{product:?}");
    assert!(is_price(product.product_price), "{product:?}");
    assert!(product.product_images.len() <= 32, "{product:?}");
    for image in &product.product_images {
        let ImageSource::Url(url) = image else { continue };
        assert!(url.len() <= 2_048, "{url}");
        let parsed = url::Url::parse(url).expect("an accepted address is a URL");
        assert!(matches!(parsed.scheme(), "http" | "https") && parsed.has_host(), "{url}");
        assert!(parsed.username().is_empty() && parsed.password().is_none(), "{url}");
    }
}

fn product_body(body: &[u8]) {
    let policy = AddressPolicy::default();
    let product = match NewProduct::from_json(body, &policy) {
        Ok(Ok(product)) => product,
        Ok(Err(invalid)) => return assert!(!invalid.errors.is_empty()),
        Err(malformed) => return assert!(!malformed.to_string().is_empty()),
    };
    check_product(&product);
    let urls = product.product_images.iter().filter_map(|image| match image {
        ImageSource::Url(url) => Some(url),
        _ => None,
    });
    let same = json!({
        "user_id": product.user_id, "product_name": product.product_name, "product_images": urls.collect::<Vec<_>>(),
        "product_description": product.product_description, "product_price": product.product_price,
    });
    let again = NewProduct::from_json(same.to_string().as_bytes(), &policy).expect("JSON").expect("still allowed");
    assert_eq!(again, product);
}

fn check_user(user: &NewUser) {
    assert!(user.id.as_ref().is_none_or(is_user_id), "{user:?}");
    assert!(user.name.as_ref().is_none_or(|name| is_text(name, 200)), "{user:?}");
    let is_email =
        |email: &String| is_text(email, 254) && email.matches('@').count() == 1 && email.chars().count() >= 3;
    assert!(user.email.as_ref().is_none_or(is_email), "{user:?}");
}

fn query(raw: &str) {
    let Some(pairs) = query_parameters(raw) else { return };
    assert!(pairs.len() <= raw.matches('&').count() + 1);
    let texts = || pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    match ProductQuery::parse(texts()) {
        Ok(query) => check_query(&query),
        Err(invalid) => assert!((1..=40).contains(&invalid.errors.len()), "{} errors", invalid.errors.len()),
    }
    if let Ok(query) = UserQuery::parse(texts()) {
        assert!((1..=100).contains(&query.limit));
        assert!(query.after.as_ref().is_none_or(is_user_id), "{query:?}");
    }
}

fn check_query(query: &ProductQuery) {
    assert!((1..=100).contains(&query.limit), "{query:?}");
    let filter = &query.filter;
    assert!(filter.user_id.as_ref().is_none_or(is_user_id), "{query:?}");
    assert!(filter.name.as_ref().is_none_or(|name| is_text(name, 200)), "{query:?}");
    let prices = [filter.min_price, filter.max_price];
    assert!(prices.into_iter().flatten().all(is_price), "{query:?}");
    if let [Some(least), Some(most)] = prices {
        assert!(least <= most, "{query:?}");
    }
    assert!(query.cursor.as_ref().is_none_or(|cursor| cursor.sort == query.sort), "{query:?}");
}

/// The fields of the command line, one per line.
fn drafts(text: &str) {
    let mut lines = text.lines();
    let mut next = || lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
    let draft = ProductDraft {
        user_id: next(),
        product_name: next(),
        product_description: next(),
        product_price: next(),
        product_images: next().into_iter().chain(next()).map(ImageSource::Url).collect(),
    };
    let user = UserDraft { id: draft.user_id.clone(), name: draft.product_name.clone(), email: next() };
    if let Ok(product) = NewProduct::parse(draft, &AddressPolicy::default()) {
        check_product(&product);
    }
    if let Ok(user) = NewUser::parse(user) {
        check_user(&user);
    }
}

fuzz_target!(
    init: write_seeds(seeds()),
    |input: &[u8]| {
        let Some((&kind, rest)) = input.split_first() else { return };
        match kind % KINDS {
            0 => product_body(rest),
            1 => {
                if let Ok(Ok(user)) = NewUser::from_json(rest) {
                    check_user(&user);
                }
            }
            2 => query(&String::from_utf8_lossy(rest)),
            _ => drafts(&String::from_utf8_lossy(rest)),
        }
    }
);
