//! Users: created, listed, read.

use serde_json::{Value, json};

use super::{create, matches_snapshot, problem, shape, wire, wrong_fields};
use crate::support::on_both_setups;

on_both_setups! {
    async fn a_user_is_created_with_the_requested_id(app: &TestApp) {
        let body = json!({"id": "1234-5678-9012", "name": " Anna Adler ", "email": "anna@example.com"});
        let made = wire::post(app, "/users", body.to_string()).await;
        matches_snapshot("a_new_user", &shape(&made, &["content-type", "location"]));
        let read = wire::get(app, made.header("location")).await;
        assert_eq!((read.status, &read.body), (200, &made.body));
        let list = wire::get(app, "/users").await;
        assert_eq!(list.json(), json!({"items": [made.json()], "next_cursor": null}));
    }

    async fn a_user_without_an_id_gets_a_new_one(app: &TestApp) {
        let first = wire::post(app, "/users", "{}").await;
        let second = wire::post(app, "/users", r#"{"id": null, "name": null, "email": null}"#).await;
        assert_eq!((first.status, second.status), (201, 201));
        let (first, second) = (first.json(), second.json());
        assert_ne!(first["id"], second["id"]);
        for user in [first, second] {
            uuid::Uuid::parse_str(user["id"].as_str().unwrap()).expect("a generated id is a UUID");
            assert_eq!((&user["name"], &user["email"]), (&Value::Null, &Value::Null));
        }
    }

    async fn a_user_id_is_used_once(app: &TestApp) {
        assert_eq!(wire::post(app, "/users", r#"{"id": "taken", "name": "first"}"#).await.status, 201);
        let again = wire::post(app, "/users", r#"{"id": "taken", "name": "second"}"#).await;
        problem(&again, 409, "conflict", "the same id again");
        assert_eq!(app.get_json("/users/taken").await["name"], "first");
        create(app, "owner", "n", "1").await;
        let late = wire::post(app, "/users", r#"{"id": "owner"}"#).await;
        problem(&late, 409, "conflict", "an id that came along with a product");
    }

    async fn the_location_header_points_to_the_user_for_every_id(app: &TestApp) {
        for id in
            ["a b", "a/b", "a%2Fb", "ü", "🦀", "a?b#c", "a+b", "\"quoted\"", "A", "a", "50%", "\u{202e}rtl", "..a"]
        {
            let made = wire::post(app, "/users", json!({"id": id}).to_string()).await;
            assert_eq!(made.status, 201, "{id}: {}", made.text());
            let read = wire::get(app, made.header("location")).await;
            assert_eq!((read.status, read.json()["id"].as_str()), (200, Some(id)));
        }
    }

    async fn users_are_listed_page_by_page(app: &TestApp) {
        let mut wanted = vec!["ant", "Bee", "cat", "dog", "äffin", "🦀", "b/c"];
        for id in &wanted {
            assert_eq!(wire::post(app, "/users", json!({"id": id}).to_string()).await.status, 201);
        }
        wanted.sort_unstable();
        let (mut seen, mut path) = (Vec::new(), "/users?limit=3".to_owned());
        loop {
            let page = wire::get(app, &path).await;
            assert_eq!(page.status, 200, "{path}: {}", page.text());
            let items = page.json()["items"].as_array().unwrap().clone();
            seen.extend(items.iter().map(|user| user["id"].as_str().unwrap().to_owned()));
            let Some(next) =
                page.header("link").strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""))
            else {
                break;
            };
            path = next.to_owned();
        }
        assert_eq!(seen, wanted);
        for (query, wrong) in [("limit=0", "limit"), ("limit=101", "limit"), ("cursor=x", "cursor"), ("name=a", "name")]
        {
            let path = format!("/users?{query}");
            assert_eq!(wrong_fields(&problem(&wire::get(app, &path).await, 422, "validation", &path)), [wrong]);
        }
    }

    async fn an_unknown_user_is_404(app: &TestApp) {
        let long = "x".repeat(65);
        for id in ["unknown", "%20", "a%00b", &long] {
            let path = format!("/users/{id}");
            problem(&wire::get(app, &path).await, 404, "not_found", &path);
        }
        problem(&wire::get(app, "/users/%ff").await, 400, "bad_request", "an id that is not UTF-8");
    }

    async fn every_invalid_field_of_a_user_is_named(app: &TestApp) {
        let body = json!({"id": " ", "name": "x".repeat(201), "email": "unknown", "age": 7});
        let answer = wire::post(app, "/users", body.to_string()).await;
        matches_snapshot("a_wrong_user", &shape(&answer, &["content-type"]));
        for (body, wrong) in [
            (json!({"id": "x".repeat(65)}), "id"),
            (json!({"id": 7}), "id"),
            (json!({"id": "a\u{0}b"}), "id"),
            (json!({"id": "a\nb"}), "id"),
            (json!({"name": " "}), "name"),
            (json!({"name": "a\u{0}b"}), "name"),
            (json!({"email": "a@b@c"}), "email"),
            (json!({"email": "a b@c"}), "email"),
            (json!({"email": "@c"}), "email"),
            (json!({"email": ["a@b"]}), "email"),
        ] {
            let details =
                problem(&wire::post(app, "/users", body.to_string()).await, 422, "validation", &body.to_string());
            assert_eq!(wrong_fields(&details), [wrong], "{body}");
        }
        assert_eq!(app.get_json("/users").await["items"], json!([]), "nothing of it was stored");
    }
}
