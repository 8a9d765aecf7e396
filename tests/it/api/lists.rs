//! Lists of products: filters, sort orders, pages.

use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization as _;

use super::{create, escaped, matches_snapshot, problem, shape, wire, wrong_fields};
use crate::support::{Origin, TestApp, on_both_setups};

const NAMES: &[&str] = &[
    "100% Cotton",
    "100 Cotton",
    "snake_case",
    "snakeXcase",
    r"back\slash",
    r#"a "quoted" one"#,
    "O'Reilly's",
    "ÜBER Größe",
    "über größe",
    "GRÖSSE",
    "Straße",
    "Éclair",
    "e\u{301}clair",
    "Ярлык ДЛЯ чая",
    "日本語の商品",
    "🦀 Crab",
    "ab",
    "A",
    "x*y (a OR b) NEAR/3 -z",
    "İstanbul",
];

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "%", "_", r"\", "\"", "'", "a", "A", "ab", "AB", "über", "ÜBER", "größe", "GRÖSSE", "SS", "ß", "cotton",
    "100%", "0 c", "e_c", "eXc", r"k\s", r#""q"#, r#"d" o"#, "o'r", "é", "É", "e\u{301}", "для ЧАЯ", "日", "日本", "日本語",
    "🦀", "🦀 c", "*", "(a or", "near/3", "-z", "%%", "__", "%c", "i\u{307}s", "no such piece",
];

/// Returns the ids of all listed products; follows `next_cursor`.
async fn ids(app: &TestApp, query: &str) -> Vec<i64> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get_json(&format!("/products?limit=100&{query}{cursor}")).await;
        all.extend(page["items"].as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()));
        match &page["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return all,
        }
    }
}

/// Returns whether a filter matches a product.
type Fits = fn(&Value) -> bool;

/// Returns the sort value as a text with the same order.
fn sort_key(product: &Value, key: &str) -> String {
    match key {
        "id" => String::new(),
        // Few digits, so a float is exact enough.
        "product_price" => format!("{:020.4}", product[key].as_f64().unwrap()),
        _ => product[key].as_str().unwrap().to_owned(),
    }
}

async fn twenty_products_with_ties(app: &TestApp) -> Vec<Value> {
    let names = ["b", "B", "a", "ä", "Z", "aa", "日本", "🦀"];
    for number in 0..20_usize {
        let price = ["19.99", "5", "100", "0.0001", "20"][number * 7 % 5];
        create(app, "seller", names[number * 5 % names.len()], price).await;
    }
    app.sql("UPDATE products SET created_at = 1700000000000000 + (id * 11 % 4) * 1000000").await;
    let all = app.get_json("/products?limit=100").await;
    assert_eq!(all["next_cursor"], Value::Null);
    all["items"].as_array().unwrap().clone()
}

on_both_setups! {
    async fn a_substring_of_a_name_is_found_with_literal_sql_wildcards(app: &TestApp) {
        for name in NAMES {
            create(app, "u", name, "1").await;
        }
        for piece in PIECES {
            // Regardless of case, and of composed or decomposed accents.
            let folded = |text: &str| text.to_lowercase().nfc().collect::<String>();
            let wanted = folded(piece);
            let expected: Vec<_> = NAMES.iter().filter(|name| folded(name).contains(&wanted)).collect();
            let page = app.get_json(&format!("/products?limit=100&name={}", escaped(piece))).await;
            let found: Vec<_> =
                page["items"].as_array().unwrap().iter().map(|product| &product["product_name"]).collect();
            assert_eq!(found, expected, "names with {piece:?}");
        }
    }

    async fn every_filter_works_alone_and_combined(app: &TestApp) {
        let origin = Origin::start().await;
        for number in 0..36 {
            // Every second product has a failed image, every third one an image that is never processed.
            let images = if number % 2 == 0 { vec![origin.url("/status/404")] } else { Vec::new() };
            let user_id = ["anna", "bert", "Anna"][number % 3];
            let name = ["Lamp", "lampshade", "Desk"][number / 3 % 3];
            let price = [5, 10, 15, 20][number / 2 % 4];
            let body =
                json!({"user_id": user_id, "product_name": name, "product_price": price, "product_images": images});
            assert_eq!(app.post("/products", &body).await.status(), 201);
        }
        app.drain().await;
        for _ in 0..6 {
            app.create(&["https://example.com/waits.jpg".to_owned()]).await;
        }
        let page = app.get_json("/products?limit=100").await;
        let all = page["items"].as_array().unwrap();
        assert_eq!(all.len(), 42);
        let filters: [(&str, Fits); 5] = [
            ("user_id=anna", |product| product["user_id"] == "anna"),
            ("min_price=10", |product| product["product_price"].as_f64() >= Some(10.0)),
            ("max_price=15.0000", |product| product["product_price"].as_f64() <= Some(15.0)),
            ("name=LAMP", |product| product["product_name"].as_str().unwrap().to_lowercase().contains("lamp")),
            ("status=failed", |product| product["status"] == "failed"),
        ];
        for chosen in 0..1_usize << filters.len() {
            let picked = || (0..filters.len()).filter(|bit| chosen >> bit & 1 == 1).map(|bit| filters[bit]);
            let query = picked().map(|(parameter, _)| parameter).collect::<Vec<_>>().join("&");
            let fits = |product: &&Value| picked().all(|(_, fits)| fits(product));
            let expected: Vec<_> = all.iter().filter(fits).map(|product| product["id"].as_i64().unwrap()).collect();
            assert!(!expected.is_empty(), "{query} shows nothing, so it proves nothing");
            assert_eq!(ids(app, &query).await, expected, "{query}");
        }
        for (status, count) in [("processing", 6), ("ready", 18), ("failed", 18)] {
            assert_eq!(ids(app, &format!("status={status}")).await.len(), count, "{status}");
        }
    }

    async fn every_sort_order_pages_through_all_rows_once_during_inserts(app: &TestApp) {
        let all = twenty_products_with_ties(app).await;
        for key in ["id", "product_price", "product_name", "created_at"] {
            let mut expected: Vec<_> = all.iter().map(|p| (sort_key(p, key), p["id"].as_i64().unwrap())).collect();
            expected.sort_unstable();
            for sort in [key.to_owned(), format!("-{key}")] {
                let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
                loop {
                    let page = app.get_json(&format!("/products?sort={sort}&limit=3{cursor}")).await;
                    let items = page["items"].as_array().unwrap();
                    seen.extend(items.iter().map(|product| product["id"].as_i64().unwrap()));
                    pages += 1;
                    let Value::String(next) = &page["next_cursor"] else { break };
                    assert_eq!(items.len(), 3, "only the last page of {sort} is shorter");
                    cursor = format!("&cursor={next}");
                    let (name, price) = [("AAA", "0"), ("zzz", "99999")][pages % 2];
                    create(app, "late", name, price).await;
                }
                let mut once = seen.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), seen.len(), "no row of {sort} is repeated");
                seen.retain(|id| *id <= 20);
                let order: Vec<_> = expected.iter().map(|(_, id)| *id).collect();
                assert_eq!(seen, order, "the rows of {sort} that were there from the beginning");
                expected.reverse();
            }
            app.sql("DELETE FROM products WHERE id > 20").await;
        }
    }

    async fn following_the_next_links_visits_every_row(app: &TestApp) {
        for number in 0..7 {
            create(app, "ä&b=c", &format!("50% off, {number}"), "5").await;
        }
        create(app, "somebody else", "50% off", "5").await;
        let mut path = format!("/products?user_id={}&name={}&limit=3&sort=-id", escaped("ä&b=c"), escaped("% OFF, "));
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let page = wire::get(app, &path).await;
            assert_eq!(page.status, 200, "{path}");
            let shown = page.json();
            let items = shown["items"].as_array().unwrap();
            seen.extend(items.iter().map(|product| product["id"].as_i64().unwrap()));
            sizes.push(items.len());
            let link = page.header("link");
            assert_eq!(link.is_empty(), shown["next_cursor"].is_null(), "the link and the cursor say the same");
            if link.is_empty() {
                break;
            }
            let next = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
            path = next.unwrap_or_else(|| panic!("{link} is no link to the next page")).to_owned();
        }
        assert_eq!((seen, sizes), ((1..=7).rev().collect(), vec![3, 3, 1]));
    }

    async fn a_page_that_ends_with_the_last_row_has_no_next_cursor(app: &TestApp) {
        for number in 0..4 {
            create(app, "u", &format!("n{number}"), "1").await;
        }
        for (limit, more) in [(1, true), (3, true), (4, false), (100, false)] {
            let page = wire::get(app, &format!("/products?limit={limit}")).await;
            assert_eq!(
                (page.json()["next_cursor"].is_string(), !page.header("link").is_empty()),
                (more, more),
                "limit {limit}"
            );
        }
        let usual = wire::get(app, "/products?").await;
        assert_eq!(usual.json()["items"].as_array().unwrap().len(), 4);
    }

    async fn a_cursor_is_valid_only_for_its_own_sort_order(app: &TestApp) {
        for number in 0..3 {
            create(app, "u", &format!("n{number}"), "1").await;
        }
        let sorts = [
            "id",
            "-id",
            "product_price",
            "-product_price",
            "product_name",
            "-product_name",
            "created_at",
            "-created_at",
        ];
        for sort in sorts {
            let page = app.get_json(&format!("/products?limit=1&sort={sort}")).await;
            let cursor = page["next_cursor"].as_str().unwrap();
            for other in sorts {
                let path = format!("/products?limit=1&sort={other}&cursor={cursor}");
                let answer = wire::get(app, &path).await;
                if other == sort {
                    assert_eq!(answer.status, 200, "{path}");
                } else {
                    assert_eq!(wrong_fields(&problem(&answer, 422, "validation", &path)), ["cursor"], "{path}");
                }
            }
        }
    }

    async fn a_forged_cursor_is_refused(app: &TestApp) {
        // The last ones are base64 of `[]`, `["id",null,1,2]`, `["id","x",1]`, `["id",null,1e99]` and 30 kB of `A`.
        let long = "QUFB".repeat(10_000);
        for cursor in [
            "1",
            "abc",
            "%00",
            "%F0%9F%A6%80",
            "W10",
            "WyJpZCIsbnVsbCwxLDJd",
            "WyJpZCIsIngiLDFd",
            "WyJpZCIsbnVsbCwxZTk5XQ",
            &long,
        ] {
            let path = format!("/products?cursor={cursor}");
            let details = problem(&wire::get(app, &path).await, 422, "validation", &path[..path.len().min(60)]);
            assert_eq!(wrong_fields(&details), ["cursor"], "{path}");
        }
    }

    async fn invalid_parameters_are_refused_by_name(app: &TestApp) {
        for (query, wrong) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("limit=-1", "limit"),
            ("limit=1.5", "limit"),
            ("limit=99999999999999999999999", "limit"),
            ("min_price=2&max_price=1", "min_price"),
            ("min_price=900719925474.0993&max_price=900719925474.0992", "min_price"),
            ("min_price=-1", "min_price"),
            ("max_price=NaN", "max_price"),
            ("max_price=1.00001", "max_price"),
            ("status=done", "status"),
            ("status=READY", "status"),
            ("sort=price", "sort"),
            ("sort=--id", "sort"),
            ("name=%20", "name"),
            ("name=a%00b", "name"),
            ("page=2", "page"),
            ("Limit=2", "Limit"),
            ("user_id=a&user_id=b", "user_id"),
            ("limit=2&limit=2", "limit"),
        ] {
            let path = format!("/products?{query}");
            let details = problem(&wire::get(app, &path).await, 422, "validation", &path);
            assert_eq!(wrong_fields(&details), [wrong], "{path}");
        }
        for broken in ["name=%", "name=%zz", "name=%ff", "%C3%28=1", "user_id=%ED%A0%80"] {
            let path = format!("/products?{broken}");
            problem(&wire::get(app, &path).await, 400, "bad_request", &path);
        }
    }

    async fn an_empty_parameter_is_no_filter(app: &TestApp) {
        for name in ["Lamp", "Chair"] {
            create(app, "u", name, "5").await;
        }
        let all = ids(app, "").await;
        assert_eq!(ids(app, "user_id=&min_price=&max_price=&name=&q=&status=&sort=&cursor=").await, all);
        assert_eq!(ids(app, "min_price=&name=chair").await, all[1..]);
        let unknown = wire::get(app, "/products?colour=").await;
        problem(&unknown, 422, "validation", "an unknown parameter");
        assert_eq!(wire::get(app, "/users?limit=&cursor=").await.status, 200);
    }

    async fn a_name_is_found_in_any_unicode_normalization(app: &TestApp) {
        let composed = create(app, "u", "Caf\u{e9} Lamp", "5").await;
        let decomposed = create(app, "u", "Cafe\u{301} Chair", "5").await;
        // As an older version stored it.
        app.sql(&format!("UPDATE products SET product_name_folded = 'cafe\u{301} chair' WHERE id = {decomposed}")).await;
        for name in ["caf\u{e9}", "CAFE\u{301}", "f\u{c9} "] {
            assert_eq!(ids(app, &format!("name={}", escaped(name))).await, [composed, decomposed], "{name}");
            let of_user = ids(app, &format!("user_id=u&sort=-product_name&name={}", escaped(name))).await;
            assert_eq!(of_user.len(), 2, "{name}");
        }
        let shown = app.get_json(&format!("/products/{decomposed}")).await;
        assert_eq!(shown["product_name"], "Cafe\u{301} Chair", "a name is stored unchanged");
    }

    async fn one_problem_names_all_invalid_parameters(app: &TestApp) {
        let query =
            "limit=101&sort=colour&min_price=9&max_price=1&status=done&page=2&user_id=a&user_id=b&name=%20&cursor=x";
        let answer = wire::get(app, &format!("/products?{query}")).await;
        matches_snapshot("wrong_parameters", &shape(&answer, &["content-type"]));
    }
}
