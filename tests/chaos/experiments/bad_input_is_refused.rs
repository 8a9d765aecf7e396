//! P15: invalid input is refused. Input that cannot be stored is refused with a problem that names it; unusual strings
//! that can be stored are returned byte for byte.

use std::net::SocketAddr;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use crate::{api::Api, inputs::naughty, measurements::counts, soundness::Counts, stage::Stage};

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let mut server = stage.serve(&["--no-worker"]).await?;
    let api = server.api();
    let bad = stage.size(1, 20);
    let mut refused = 0;
    for _ in 0..bad {
        for (what, body, status) in bodies() {
            refuses(&api, &what, body, status).await.with_context(|| what.clone())?;
            refused += 1;
        }
    }
    let queries = queries(&api, server.address).await?;
    let strings = naughty::strings();
    let kept: Vec<_> = stream::iter(&strings).map(|text| kept(&api, text)).buffer_unordered(8).try_collect().await?;
    anyhow::ensure!(server.process.is_running(), "the server has ended");
    // A second process, without a cache, reads the stored products again.
    server.process.kill().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let api = server.api();
    let again = kept.iter().map(|(id, product)| {
        let api = &api;
        async move {
            let read = api.product(*id).await?;
            anyhow::ensure!(read == *product, "{read} was {product}");
            Ok(())
        }
    });
    stream::iter(again).buffer_unordered(8).try_collect::<()>().await?;
    server.process.kill().await;
    let everywhere = kept.iter().filter(|(_, product)| product["user_id"] != "u").count();
    Ok(counts(json!({
        "bodies_refused": refused, "queries_refused": queries, "strings": strings.len(), "strings_back": kept.len(),
        "strings_in_every_field": everywhere,
    })))
}

fn product() -> Value {
    json!({"user_id": "u", "product_name": "n", "product_price": 1})
}

fn with(field: &str, value: Value) -> Vec<u8> {
    let mut product = product();
    product[field] = value;
    product.to_string().into_bytes()
}

/// Returns bodies that must be refused, each with the expected status.
fn bodies() -> Vec<(String, Vec<u8>, u16)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let deep = |open: &str, close: &str| format!("{{\"a\": {}{}}}", open.repeat(100_000), close.repeat(100_000));
    let mut all = vec![
        ("over the limit".to_owned(), with("product_description", "x".repeat(2 << 20).into()), 413),
        ("no body".to_owned(), Vec::new(), 400),
        ("bad UTF-8".to_owned(), [b"{\"user_id\": \"".as_slice(), &[0xff, 0xfe], b"\"}"].concat(), 400),
        ("half a surrogate".to_owned(), text(r#"{"user_id": "\ud800", "product_name": "n", "product_price": 1}"#), 422),
        ("cut off".to_owned(), text(r#"{"user_id": "u", "product_na"#), 400),
        ("a list".to_owned(), text("[1]"), 400),
        (
            "two byte order marks".to_owned(),
            [b"\xef\xbb\xbf\xef\xbb\xbf".as_slice(), &with("product_name", "n".into())].concat(),
            400,
        ),
        ("two values".to_owned(), text("{} {}"), 400),
        (
            "a duplicate field".to_owned(),
            text(r#"{"user_id": "a", "user_id": "b", "product_name": "n", "product_price": 1}"#),
            422,
        ),
        ("not a number".to_owned(), text(r#"{"user_id": "u", "product_name": "n", "product_price": NaN}"#), 400),
        ("deep lists".to_owned(), deep("[", "]").into_bytes(), 422),
        ("deep objects".to_owned(), deep("{\"a\":", "}").replace("{\"a\":}", "{}").into_bytes(), 422),
        ("10,001 characters".to_owned(), with("product_description", "ä".repeat(10_001).into()), 422),
        ("33 images".to_owned(), with("product_images", json!(vec!["http://example.com/a.jpg"; 33])), 422),
        ("unknown fields".to_owned(), with("colour", "red".into()), 422),
    ];
    for (field, longest) in [("product_name", 200), ("user_id", 64)] {
        all.push((format!("a long {field}"), with(field, "x".repeat(longest + 1).into()), 422));
        all.push((format!("a {field} of 10,001 characters"), with(field, "x".repeat(10_001).into()), 422));
    }
    for field in ["user_id", "product_name", "product_description"] {
        all.push((format!("NUL in {field}"), with(field, "a\0b".into()), 422));
    }
    for field in ["user_id", "product_name", "product_description", "product_images", "product_price"] {
        for value in [json!(true), json!({}), json!([[]]), json!(-1), json!("\u{1f600}"), json!(["ftp://x/"])] {
            // An emoji is a valid name and a valid description.
            if value.is_string() && field != "product_images" && field != "product_price" {
                continue;
            }
            all.push((format!("{value} as {field}"), with(field, value), 422));
        }
    }
    for digits in ["1e400", "-0.0001", "1.00001", "1000000000000", &"9".repeat(100_000), "1e-99999999999"] {
        let body = format!(r#"{{"user_id": "u", "product_name": "n", "product_price": {digits}}}"#);
        all.push((format!("the price {}", &digits[..digits.len().min(20)]), body.into_bytes(), 422));
    }
    all
}

async fn refuses(api: &Api, what: &str, body: Vec<u8>, status: u16) -> anyhow::Result<()> {
    let request = api.client().post(api.url("/products")).header("Content-Type", "application/json").body(body);
    is_problem(what, request.send().await?, &[status]).await
}

async fn is_problem(what: &str, response: reqwest::Response, statuses: &[u16]) -> anyhow::Result<()> {
    let status = response.status().as_u16();
    anyhow::ensure!(statuses.contains(&status), "{what} is answered {status}, not {statuses:?}");
    let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    anyhow::ensure!(kind == "application/problem+json", "{what}: the answer is {kind:?}");
    let body: Value = response.json().await?;
    anyhow::ensure!(body["status"] == status && body["code"].is_string(), "{what}: {body}");
    let length = body.to_string().len();
    anyhow::ensure!(length < 20_000, "{what}: the answer has {length} bytes");
    Ok(())
}

/// Sends queries that must be refused; returns their number.
async fn queries(api: &Api, address: SocketAddr) -> anyhow::Result<usize> {
    let mut all: Vec<String> = [
        "limit=0",
        "limit=101",
        "limit=1&limit=1",
        "sort=price",
        "cursor=x",
        "min_price=2&max_price=1",
        "a=%ff",
        "a=%",
        "status=%20",
    ]
    .map(str::to_owned)
    .to_vec();
    // Queries that fit into a request head; longer ones are refused before they are parsed.
    all.push((0..5_000).map(|number| format!("p{number}=1&")).collect());
    for query in &all {
        let response = api.client().get(api.url(&format!("/products?{query}"))).send().await?;
        let shown = &query[..query.len().min(30)];
        is_problem(shown, response, &[400, 422]).await?;
    }
    let million = "a&".repeat(1_000_000);
    let status = raw(address, &format!("GET /products?{million} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await?;
    anyhow::ensure!(matches!(status, 414 | 431), "a million parameters are answered {status}");
    for id in ["0x1", "1e3", "-1", "9223372036854775808", "%31%00", "..%2f1", "1%20", "\u{661}"] {
        let response = api.client().get(api.url(&format!("/products/{id}"))).send().await?;
        is_problem(id, response, &[404]).await?;
    }
    Ok(all.len() + 9)
}

/// Sends these bytes unchanged; returns the status of the answer.
async fn raw(address: SocketAddr, request: &str) -> anyhow::Result<u16> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let (mut reads, mut writes) = stream.split();
    let mut answer = [0; 12];
    // The server may answer and close long before it has read all bytes.
    let (_, read) = tokio::join!(writes.write_all(request.as_bytes()), reads.read_exact(&mut answer));
    read.context("no answer")?;
    Ok(std::str::from_utf8(&answer)?.rsplit(' ').next().context("no status")?.parse()?)
}

/// Stores `text` in every field that accepts it; returns the product.
async fn kept(api: &Api, text: &str) -> anyhow::Result<(i64, Value)> {
    let body = json!({
        "user_id": text, "product_name": text, "product_description": text, "product_price": 1,
    });
    let mut answer = api.post("/products", &body).await?;
    if answer.status == 422 {
        // Ids accept fewer characters than names, and names fewer than descriptions.
        let mut body = product();
        body["product_description"] = text.into();
        answer = api.post("/products", &body).await?;
        let listed = format!("/products?name={}", percent(text));
        let listed = api.get(&listed).await?;
        anyhow::ensure!(matches!(listed.status, 200 | 422), "{text:?} in a query is answered {}", listed.status);
    } else {
        let listed = api.get(&format!("/products?user_id={}", percent(text))).await?;
        let found = listed.body["items"][0]["id"] == answer.body["id"];
        anyhow::ensure!(listed.status == 200 && found, "the products of {text:?}: {}", listed.body);
    }
    anyhow::ensure!(answer.status == 201, "{text:?} is answered {}: {}", answer.status, answer.body);
    let id = answer.id().context("a number")?;
    let read = api.product(id).await?;
    let description = read["product_description"].as_str();
    anyhow::ensure!(description == Some(text), "the description {text:?} came back as {description:?}");
    if read["user_id"] != "u" {
        anyhow::ensure!(read["user_id"] == text, "the user {text:?} came back as {}", read["user_id"]);
        anyhow::ensure!(read["product_name"] == text.trim(), "the name {text:?} came back as {}", read["product_name"]);
    }
    Ok((id, read))
}

fn percent(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
