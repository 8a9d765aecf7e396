//! The HTTP API, tested against the running program over real sockets.

mod bad_input;
mod batch;
mod cache;
mod conditions;
mod encodings;
mod idempotency;
mod images;
mod lists;
mod originals;
mod patch;
mod presets;
mod products;
mod public_url;
mod queue;
mod resize;
mod search;
pub mod set_ups;
mod status;
pub mod uploads;
mod users;
pub mod wire;

use serde_json::{Value, json};

use crate::support::TestApp;
use wire::Answer;

/// Checks the fields that all problems share and returns the JSON. `when` names the request in failures.
fn problem(answer: &Answer, status: u16, code: &str, when: &str) -> Value {
    let shown = answer.text();
    assert_eq!(answer.status, status, "{when}: {shown}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{when}");
    let details = answer.json();
    assert_eq!(details["code"], code, "{when}: {shown}");
    assert_eq!(details["status"], status, "{when}: {shown}");
    assert_eq!(details["type"], format!("/problems/{code}"), "{when}: {shown}");
    assert_eq!(details["request_id"], answer.header("x-request-id"), "{when}");
    for member in ["title", "detail", "request_id"] {
        assert!(details[member].as_str().is_some_and(|text| !text.is_empty()), "{when} has no {member}: {shown}");
    }
    for secret in ["SELECT", "INSERT", "sqlx", "panicked", "src/", "postgres://", "pm_test_"] {
        assert!(!shown.contains(secret), "{when} leaks {secret}: {shown}");
    }
    details
}

/// Returns the names of the invalid fields, sorted.
fn wrong_fields(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut fields: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    fields
}

/// Returns status, body and the headers in `names` for a snapshot, with varying values redacted.
fn shape(answer: &Answer, names: &[&str]) -> Value {
    let headers: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), answer.header(name).into())).collect();
    let mut body = answer.json();
    blot(&mut body);
    json!({"status": answer.status, "headers": headers, "body": body})
}

/// Redacts times, request ids, image keys and values that depend on the encoders' versions.
fn blot(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(blot),
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), &member) {
                    ("created_at" | "updated_at" | "queued_at" | "died_at" | "ended_at", Value::String(time)) => {
                        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time} is not RFC 3339 in UTC");
                        *member = "[time]".into();
                    }
                    ("request_id" | "thumbhash" | "dominant_color" | "perceptual_hash", Value::String(_)) => {
                        *member = format!("[{name}]").into();
                    }
                    ("latency_ms" | "bytes", Value::Number(_)) => *member = format!("[{name}]").into(),
                    ("url", Value::String(url)) => *member = without_key(url).into(),
                    ("compressed_product_images", Value::Array(urls)) => {
                        *member = urls.iter().map(|url| without_key(url.as_str().unwrap())).collect();
                    }
                    _ => blot(member),
                }
            }
        }
        _ => {}
    }
}

fn without_key(url: &str) -> String {
    let (path, extension) = url.rsplit_once('.').expect("an image has an extension");
    let (start, _) = path.split_once("/images/").expect("the path of images");
    format!("{start}/images/[key].{extension}")
}

/// Compares with the snapshot `name`, which all set-ups share.
fn matches_snapshot(name: &str, value: &Value) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_json_snapshot!(name, value);
    });
}

/// Creates a product without images and returns its id.
async fn create(app: &TestApp, user_id: &str, name: &str, price: &str) -> i64 {
    let names = json!({"user_id": user_id, "product_name": name}).to_string();
    let body = format!("{},\"product_price\":{price}}}", names.trim_end_matches('}'));
    let answer = wire::post(app, "/products", &body).await;
    assert_eq!(answer.status, 201, "{body}: {}", answer.text());
    answer.json()["id"].as_i64().unwrap()
}

/// Percent-encodes a query value.
fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
