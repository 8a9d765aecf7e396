//! Tests that each parser's time grows linearly with the request body.

use std::time::{Duration, Instant};

use crate::domain::{AddressPolicy, NewProduct, NewUser, NewWebhook, ProductPatch, batch::products_from_json};

type Parser = fn(&[u8]);

const PARSERS: [(&str, Parser); 6] = [
    ("product", |json| drop(NewProduct::from_json(json, &AddressPolicy::default()))),
    ("batch", |json| drop(products_from_json(json, &AddressPolicy::default(), None))),
    ("patch", |json| drop(ProductPatch::from_json(json))),
    ("more images", |json| drop(ProductPatch::more_images_from_json(json))),
    ("user", |json| drop(NewUser::from_json(json))),
    ("webhook", |json| drop(NewWebhook::from_json(json, &AddressPolicy::default()))),
];

/// Returns bodies of about this size.
fn bodies(bytes: usize) -> Vec<(&'static str, String)> {
    let names = |name: &dyn Fn(usize) -> String, each: usize| {
        let fields: Vec<_> = (0..bytes / each).map(|number| format!("\"{}\":1", name(number))).collect();
        format!("{{{}}}", fields.join(","))
    };
    let list =
        |field: &str, entry: &str| format!("{{\"{field}\":[{}]}}", vec![entry; bytes / (entry.len() + 1)].join(","));
    vec![
        ("many names", names(&|number| format!("k{number}"), 10)),
        ("one name again and again", names(&|_| "url".into(), 8)),
        ("known name again and again", names(&|_| "product_name".into(), 17)),
        ("many images", list("product_images", "1")),
        ("wrong addresses", list("product_images", "\"http://10.0.0.1/\"")),
        ("many addresses", list("urls", "\"x\"")),
        ("many types", list("types", "\"image.ready\"")),
        ("many products", list("products", "{\"a\":1}")),
        ("a list of products", format!("[{}]", vec!["{\"a\":1}"; bytes / 8].join(","))),
        ("a long text", format!("{{\"product_name\":\"{}\"}}", "é".repeat(bytes / 2))),
        ("a long number", format!("{{\"product_price\":{}}}", "1".repeat(bytes))),
        ("deep lists", format!("{{\"a\":{}{}}}", "[".repeat(bytes / 2), "]".repeat(bytes / 2))),
        ("escapes", format!("{{\"product_name\":\"{}\"}}", "\\u00e9".repeat(bytes / 6))),
    ]
}

/// Returns the shortest of several measurements, which is the least disturbed.
fn time_of(parser: Parser, body: &str) -> Duration {
    let times = (0..3).map(|_| {
        let began = Instant::now();
        parser(body.as_bytes());
        began.elapsed()
    });
    times.min().unwrap_or_default()
}

#[test]
fn the_time_of_every_parser_grows_linearly() {
    const BYTES: usize = 64 << 10;
    const TIMES: usize = 16;
    /// Quadratic growth would take 256 times as long.
    const MAX_RATIO: u32 = 80;
    /// Shorter times are not significant.
    const NOISE: Duration = Duration::from_millis(5);
    for ((shape, small), (_, large)) in bodies(BYTES).into_iter().zip(bodies(BYTES * TIMES)) {
        for (name, parser) in PARSERS {
            let (short, long) = (time_of(parser, &small), time_of(parser, &large));
            assert!(long < short * MAX_RATIO + NOISE * 4, "{name} of {shape}: {short:?}, then {long:?}");
        }
    }
}
