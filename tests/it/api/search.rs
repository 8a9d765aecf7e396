//! Full-text search: the same products in the same order on both databases.

use serde_json::{Value, json};

use super::{escaped, problem, wire, wrong_fields};
use crate::support::{TestApp, on_both_setups};

/// Names and descriptions; a product's id is its position, from 1.
const PRODUCTS: &[(&str, &str)] = &[
    ("Naïve Café Lamp", "A small lamp for the table."),
    ("Lampshade", "Fits every lamp."),
    ("Desk", "A desk with a lamp and a naive drawer."),
    ("LAMP", ""),
    ("Table lamp naive", "cafe"),
    ("snake_case & co", "x*y (a OR b) NEAR/3 -z \"quoted\" it's <-> !not :*"),
    ("Straße der Größe", "İstanbul, Łódź, Ærø"),
    ("日本語の商品", "すし と さしみ"),
    ("เสื้อยืดสีแดง", "ผ้าฝ้าย"),
    ("हिन्दी किताब", "🦀 only a crab"),
    ("iPhone 15 Pro", "128GB, 6.1\" OLED, 5G"),
    ("Ярлык ДЛЯ чая", "ёлка"),
    ("a", "b c"),
    ("and or not near", "AND OR NOT NEAR"),
];

/// Queries and the ids that they find, in order.
const QUERIES: &[(&str, &[i64])] = &[
    ("lamp", &[5, 4, 1, 2, 3]),
    ("LÄMP", &[5, 4, 1, 2, 3]),
    ("lam", &[5, 4, 2, 1, 3]),
    ("lamps", &[2]),
    ("naive lamp", &[5, 1, 3]),
    ("lamp naïve", &[5, 1, 3]),
    ("cafe lamp", &[1, 5]),
    ("table lam", &[5, 1]),
    ("lam table", &[]),
    ("small desk", &[]),
    ("des", &[3]),
    ("STRASSE", &[7]),
    ("groß", &[7]),
    ("istanbul lodz", &[7]),
    ("aero", &[7]),
    ("snake_case", &[6]),
    ("case-snake", &[6]),
    ("quoted", &[6]),
    ("it's", &[6]),
    ("near", &[14, 6]),
    ("a OR b", &[6]),
    ("not or and", &[14]),
    ("\"lamp\" OR desk", &[]),
    ("lamp*", &[5, 4, 1, 2, 3]),
    ("-lamp", &[5, 4, 1, 2, 3]),
    ("lamp' OR '1'='1", &[]),
    ("lamp & !desk | x:* <-> y", &[]),
    ("=lamp", &[5, 4, 1, 2, 3]),
    ("日本", &[8]),
    ("商品 すし", &[8]),
    ("本日", &[8]),
    ("中国", &[]),
    ("เสื้อ", &[9]),
    ("किता", &[10]),
    ("🦀 crab", &[10]),
    ("15 iphone", &[11]),
    ("6.1", &[11]),
    ("128g", &[11]),
    ("ЕЛК", &[12]),
    ("для ярлык", &[12]),
    ("b", &[13, 6]),
];

async fn add(app: &TestApp, name: &str, description: &str) -> i64 {
    let body = json!({
        "user_id": "seller", "product_name": name, "product_description": description, "product_price": 1,
    });
    let answer = wire::post(app, "/products", body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_i64().unwrap()
}

fn ids(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()).collect()
}

async fn find(app: &TestApp, q: &str, more: &str) -> Vec<i64> {
    ids(&app.get_json(&format!("/products?limit=100&q={}{more}", escaped(q))).await)
}

/// Reads the same list, one product per page.
async fn find_one_per_page(app: &TestApp, q: &str) -> Vec<i64> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get_json(&format!("/products?limit=1&q={}{cursor}", escaped(q))).await;
        found.extend(ids(&page));
        match &page["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return found,
        }
    }
}

on_both_setups! {
    async fn every_query_finds_the_same_products_in_the_same_order(app: &TestApp) {
        for (name, description) in PRODUCTS {
            add(app, name, description).await;
        }
        for (q, expected) in QUERIES {
            assert_eq!(find(app, q, "").await, *expected, "{q}");
            assert_eq!(find_one_per_page(app, q).await, *expected, "{q}, page by page");
            let mut by_id = expected.to_vec();
            by_id.sort_unstable();
            assert_eq!(find(app, q, "&sort=id").await, by_id, "{q}, in the order that was asked for");
        }
        assert_eq!(find(app, "lamp", "&name=DESK").await, [3]);
        assert_eq!(find(app, "lamp", "&user_id=unknown").await, [0; 0]);
        assert_eq!(find(app, "lamp", "&status=ready&min_price=1&max_price=1&sort=-product_name").await, [5, 1, 2, 4, 3]);
    }

    async fn a_query_without_a_term_is_refused(app: &TestApp) {
        for q in [" ", "&|!()*:\"'", "🦀", "\0"] {
            let path = format!("/products?q={}", escaped(q));
            assert_eq!(wrong_fields(&problem(&wire::get(app, &path).await, 422, "validation", &path)), ["q"]);
        }
        let long = format!("/products?q={}", "x".repeat(201));
        assert_eq!(wrong_fields(&problem(&wire::get(app, &long).await, 422, "validation", "long")), ["q"]);
    }

    async fn long_texts_are_found_by_their_last_term(app: &TestApp) {
        let long = format!("{} needle", "wörter ".repeat(1_427));
        add(app, &"ab ".repeat(66), &long).await;
        add(app, &"𝔘".repeat(200), &"日本".repeat(5_000)).await;
        assert_eq!(find(app, "needle", "").await, [1]);
        assert_eq!(find(app, &"wörter ".repeat(20), "").await, [1]);
        assert_eq!(find(app, &"u".repeat(200), "").await, [2], "only the prefix of a long term counts");
        assert_eq!(find(app, "本", "").await, [2]);
    }

    async fn a_search_follows_changes_and_deletions(app: &TestApp) {
        let (one, other) = (add(app, "Red lamp", "").await, add(app, "Green lamp", "").await);
        assert_eq!(find(app, "lamp", "").await, [other, one]);
        let headers = [("Content-Type", "application/json")];
        let path = format!("/products/{one}");
        let body = br#"{"product_name": "Red sofa", "product_description": "no longer a light"}"#;
        assert_eq!(wire::send(app.address, "PATCH", &path, &headers, body).await.status, 200);
        assert_eq!(find(app, "lamp", "").await, [other]);
        assert_eq!(find(app, "sofa", "").await, [one]);
        assert_eq!(find(app, "light red", "").await, [one]);
        assert_eq!(wire::send(app.address, "DELETE", &path, &[], b"").await.status, 204);
        assert_eq!(find(app, "sofa", "").await, [0; 0]);
        assert_eq!(find(app, "lamp", "").await, [other]);
    }

    async fn products_of_an_older_version_are_found_after_the_migration(app: &TestApp) {
        app.sql("INSERT INTO users (id, created_at) VALUES ('u', 1)").await;
        for number in 0..900 {
            let name = if number % 300 == 0 { "rare" } else { "usual" };
            app.sql(&format!(
                "INSERT INTO products (user_id, product_name, product_name_folded, product_description, product_price,
                    status, version, created_at, updated_at)
                VALUES ('u', '{name} {number}', '{name} {number}', '', 1, 'ready', 1, 1, 1)"
            )).await;
        }
        assert_eq!(find(app, "rare", "").await, [0; 0]);
        pm::db::migrate::up(&app.app.database, None).await.unwrap();
        assert_eq!(find(app, "rare", "").await, [601, 301, 1]);
        assert_eq!(find(app, "usual 899", "").await, [900]);
    }

    async fn a_search_cursor_is_valid_only_for_searches(app: &TestApp) {
        for _ in 0..3 {
            add(app, "lamp", "").await;
        }
        let page = app.get_json("/products?q=lamp&limit=1").await;
        let cursor = page["next_cursor"].as_str().unwrap();
        for other in ["", "&sort=id", "&q=lamp&sort=-id"] {
            let path = format!("/products?limit=1&cursor={cursor}{other}");
            assert_eq!(wrong_fields(&problem(&wire::get(app, &path).await, 422, "validation", &path)), ["cursor"]);
        }
        let path = format!("/products?limit=1&q=lamp&sort=fit&cursor={cursor}");
        assert_eq!(wrong_fields(&problem(&wire::get(app, &path).await, 422, "validation", &path)), ["sort"]);
    }
}
