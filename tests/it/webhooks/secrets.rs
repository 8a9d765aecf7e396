//! Webhook secrets in the database: encrypted, readable with each key of `PM_SECRET_KEY`, and kept with a wrong key.

use std::{collections::BTreeMap, fs};

use pm::{app::App, domain::NewWebhook, secret_keys::is_encrypted};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use standardwebhooks::Webhook as Signer;

use super::{deliveries, let_messages_be_due, webhook};
use crate::{
    api::wire,
    keep::{code, doctor, pm, stderr},
    support::{Setup, TestApp, app, on_both_setups, receiver::Receiver},
};

const NEW: &str = "another key of the tests with 32 characters";
const PLAIN: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

async fn stored(app: &TestApp) -> String {
    let connection = app.app.database.read();
    let statement = Statement::from_string(connection.get_database_backend(), "SELECT secret FROM webhooks");
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// The key of this set-up.
fn key(app: &TestApp) -> String {
    let made = || fs::read_to_string(app.directory().join("data/secret.key")).unwrap();
    app.environment.get("PM_SECRET_KEY").cloned().unwrap_or_else(made)
}

fn environment(app: &TestApp, keys: &str) -> BTreeMap<String, String> {
    let mut environment = app.environment.clone();
    environment.insert("PM_SECRET_KEY".into(), keys.into());
    environment
}

/// Opens the catalog with these keys, as after a restart.
async fn started(app: &TestApp, keys: &str) -> App {
    app::build(&environment(app, keys), app.directory()).await
}

/// Claims a delivery, and returns the secret that signs it.
async fn secret_of_the_next_message(app: &App) -> Option<String> {
    app.catalog.claim_deliveries(64).await.unwrap().pop().map(|claimed| claimed.secret.into_revealed())
}

on_both_setups! {
    async fn a_secret_is_encrypted_in_the_database_and_signs_as_before(app: &TestApp) {
        let receiver = Receiver::start().await;
        let made = webhook(app, &receiver, &[]).await;
        let secret = made["secret"].as_str().unwrap();
        let stored = stored(app).await;
        assert!(is_encrypted(&stored) && !stored.contains(secret), "{stored}");
        let (stopper, worker) = app.start_worker().await;
        app.create(&[]).await;
        let message = receiver.wait_for(1).await.remove(0);
        Signer::new(secret).unwrap().verify(&message.body, &message.headers).expect("a valid signature");
        stopper.cancel();
        worker.await.unwrap();
    }

    async fn a_plain_secret_of_an_older_version_works_and_is_encrypted_at_the_next_start(app: &TestApp) {
        let receiver = Receiver::start().await;
        webhook(app, &receiver, &[]).await;
        app.sql(&format!("UPDATE webhooks SET secret = '{PLAIN}'")).await;
        for _ in 0..2 {
            app.create(&[]).await;
        }
        assert_eq!(secret_of_the_next_message(&app.app).await.as_deref(), Some(PLAIN));
        let printed = doctor(app, &["--quick"]).await.to_string();
        assert!(printed.contains("unencrypted secrets of webhooks 1; the next start"), "{printed}");
        let again = app.another().await;
        assert!(is_encrypted(&stored(app).await));
        assert_eq!(secret_of_the_next_message(&again).await.as_deref(), Some(PLAIN));
        let encrypted = stored(app).await;
        app.another().await;
        assert_eq!(stored(app).await, encrypted, "once is enough");
        app.sql(&format!("UPDATE webhooks SET secret = '{PLAIN}'")).await;
        let migrated = pm(app, &["migrate", "up"]).await;
        assert_eq!(code(&migrated), 0, "{}", stderr(&migrated));
        assert!(is_encrypted(&stored(app).await));
    }

    async fn a_secret_key_is_rotated_in_steps(app: &TestApp) {
        let receiver = Receiver::start().await;
        let secret = webhook(app, &receiver, &[]).await["secret"].clone();
        for _ in 0..3 {
            app.create(&[]).await;
        }
        let (old, first) = (key(app), stored(app).await);
        let both = started(app, &format!("{old},{NEW}")).await;
        assert_eq!(stored(app).await, first, "the first key encrypts");
        assert_eq!(secret_of_the_next_message(&both).await.map(Value::from).as_ref(), Some(&secret));
        let changed = started(app, &format!("{NEW},{old}")).await;
        assert_ne!(stored(app).await, first, "secrets under the older key are encrypted again");
        assert_eq!(secret_of_the_next_message(&changed).await.map(Value::from).as_ref(), Some(&secret));
        let new = started(app, NEW).await;
        assert_eq!(secret_of_the_next_message(&new).await.map(Value::from).as_ref(), Some(&secret));
    }

    async fn with_a_wrong_secret_key_deliveries_wait_and_none_is_lost(app: &TestApp) {
        let receiver = Receiver::start().await;
        let made = webhook(app, &receiver, &["product.created"]).await;
        for _ in 0..2 {
            app.create(&[]).await;
        }
        let (file, moved) = (app.directory().join("data/secret.key"), app.directory().join("moved"));
        let has_file = fs::rename(&file, &moved).is_ok();
        let wrong = started(app, NEW).await;
        let before = stored(app).await;
        assert_eq!(secret_of_the_next_message(&wrong).await, None);
        assert_eq!(secret_of_the_next_message(&wrong).await, None, "the webhook is paused");
        let waiting = deliveries(app, &made).await;
        assert!(waiting.iter().all(|delivery| delivery["state"] == "queued" && delivery["attempts"] == 0), "{waiting:?}");
        let error = waiting.iter().find_map(|delivery| delivery["error"].as_str()).unwrap();
        assert!(error.contains("secret of webhook 1 cannot be decrypted: no key in PM_SECRET_KEY"), "{error}");
        let shown = wire::get(app, &format!("/webhooks/{}", made["id"])).await.json();
        assert_eq!((&shown["enabled"], &shown["failing_since"]), (&json!(true), &Value::Null), "{shown}");
        assert_eq!(stored(app).await, before);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pm"));
        command.env_clear().envs(environment(app, NEW)).current_dir(app.directory()).args(["doctor", "--quick", "--json"]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(code(&output) == 1 && printed.contains("no key decrypts the secrets of webhooks 1"), "{printed}");

        if has_file {
            fs::rename(&moved, &file).unwrap();
        }
        let_messages_be_due(app).await;
        let (stopper, worker) = app.start_worker().await;
        let messages = receiver.wait_for(2).await;
        let signer = Signer::new(made["secret"].as_str().unwrap()).unwrap();
        assert!(messages.iter().all(|message| signer.verify(&message.body, &message.headers).is_ok()));
        stopper.cancel();
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_secret_key_no_webhook_is_created_on_postgres() {
    app::run_with(Setup::Full, &[("PM_SECRET_KEY", "")], async |app: &TestApp| {
        let answer = wire::post(app, "/webhooks", json!({"url": "http://127.0.0.1:9/hook"}).to_string()).await;
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("not_configured")), "{}", answer.text());
        assert!(answer.text().contains("set PM_SECRET_KEY to at least 32 characters"), "{}", answer.text());
        let refused = pm(app, &["webhook", "add", "http://127.0.0.1:9/hook"]).await;
        assert!(code(&refused) == 2 && stderr(&refused).contains("set PM_SECRET_KEY"), "{}", stderr(&refused));
        assert_eq!(app.number("SELECT count(*) FROM webhooks").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_read_from_a_file() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        fs::write(app.directory().join("secret"), format!("{PLAIN}\n")).unwrap();
        let words = ["webhook", "add", "http://127.0.0.1:9/hook", "--secret-file", "secret", "-o", "json"];
        let added = pm(app, &words).await;
        assert_eq!(code(&added), 0, "{}", stderr(&added));
        assert!(String::from_utf8_lossy(&added.stdout).contains(PLAIN));
        let missing = pm(app, &["webhook", "add", "http://127.0.0.1:9/hook", "--secret-file", "none"]).await;
        assert!(code(&missing) == 2 && stderr(&missing).contains("none"), "{}", stderr(&missing));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_before_the_server_after_an_update_shares_its_key() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        let file = app.directory().join("data/secret.key");
        fs::remove_file(&file).unwrap();
        let flags = pm::config::Flags::default();
        let settings = pm::config::load(&flags, app.directory(), app.environment.clone()).unwrap();
        let worker = App::start(&settings, pm::app::Access::Existing).await.unwrap();
        assert!(worker.catalog.encrypts_secrets());
        let made = fs::read_to_string(&file).unwrap();
        let server = app.another().await;
        assert_eq!(fs::read_to_string(&file).unwrap(), made);
        let new = NewWebhook { url: "http://127.0.0.1:9/hook".into(), kinds: Vec::new(), secret: None };
        let (_, secret) = server.catalog.create_webhook(new, None).await.unwrap().value;
        app.create(&[]).await;
        assert_eq!(secret_of_the_next_message(&worker).await, Some(secret));
    })
    .await;
}
