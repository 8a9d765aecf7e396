//! Tests of `pm key`.

use super::{Shop, text};

#[test]
fn an_api_key_is_shown_once_listed_without_its_secret_and_revoked() {
    let shop = Shop::new();
    let args = ["key", "create", "--user-id", "seller", "--scope", "products:read,products:write", "--expires", "90d"];
    let made = shop.json(&args);
    let key = made["key"].as_str().expect("the key");
    assert!(key.starts_with("pm_") && key.len() == 67, "{key}");
    assert_eq!(
        (made["user_id"].as_str(), made["scopes"].as_str()),
        (Some("seller"), Some("products:read products:write"))
    );
    assert!(made["expires_at"].is_string());
    let quiet = shop.read(&["key", "create", "--user-id", "seller", "--scope", "admin", "--name", "import", "-q"]);
    assert!(quiet.starts_with("pm_") && quiet.lines().count() == 1, "{quiet}");

    let listed = shop.read(&["key", "list"]);
    assert!(!listed.contains(key) && !listed.contains(quiet.trim()), "{listed}");
    assert!(listed.contains(&key[..11]) && listed.contains("import"), "{listed}");
    let keys = shop.json(&["key", "list"])["items"].clone();
    assert_eq!(keys.as_array().map(Vec::len), Some(2), "{keys}");
    assert!(keys[0].get("key").is_none() && keys[0]["revoked_at"].is_null(), "{keys}");

    let id = made["id"].to_string();
    shop.read(&["key", "revoke", &id]);
    assert!(shop.json(&["key", "list"])["items"][0]["revoked_at"].is_string());
    assert_eq!(shop.fail(&["key", "revoke", "999"]).0, 3);
    let (code, stderr) = shop.fail(&["key", "create", "--user-id", "seller", "--scope", "everything"]);
    assert!(code == 2 && stderr.contains("`everything`"), "{stderr}");
    let output = shop.run(&["key", "create", "--user-id", "seller"]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("--scope"));
}
