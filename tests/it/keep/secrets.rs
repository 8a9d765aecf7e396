//! Secrets in a backup: encrypted with a passphrase, omitted on request, never in plain text.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pm::secret_keys::{SecretKeys, is_encrypted};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use super::{code, json as printed_json, pm, stderr};
use crate::support::{Setup, TestApp, app, images, on_both_setups};

const NEVER: &[&str] = &["--passphrase-file", "/nonexistent"];

async fn text(app: &TestApp, sql: &str) -> String {
    let connection = app.app.database.read();
    let statement = Statement::from_string(connection.get_database_backend(), sql.to_owned());
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn number(app: &TestApp, sql: &str) -> i64 {
    let connection = app.app.database.read();
    let statement = Statement::from_string(connection.get_database_backend(), sql.to_owned());
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Returns the webhook's secret, as used for signatures.
async fn webhook_secret(app: &TestApp) -> String {
    let made = || fs::read_to_string(app.directory().join("data/secret.key")).unwrap();
    let key = app.environment.get("PM_SECRET_KEY").cloned().unwrap_or_else(made);
    let stored = text(app, "SELECT secret FROM webhooks").await;
    assert!(is_encrypted(&stored), "{stored}");
    SecretKeys::parse(&key).unwrap().decrypt("webhooks.secret 1", &stored).unwrap()
}

/// Creates a webhook and an API key; returns the webhook's secret and the key's hash.
async fn with_secrets(app: &TestApp) -> (String, String) {
    let added = pm(app, &["webhook", "add", "http://127.0.0.1:9/hook"]).await;
    assert_eq!(code(&added), 0, "{}", stderr(&added));
    app.create(&[]).await;
    let created = pm(app, &["key", "create", "--user-id", "seller", "--scope", "products:read", "-q"]).await;
    assert_eq!(code(&created), 0, "{}", stderr(&created));
    (webhook_secret(app).await, text(app, "SELECT hash FROM api_keys").await)
}

fn no_file_holds(directory: &Path, secret: &str) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_file_holds(&path, secret);
        } else {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret in the clear", path.display());
        }
    }
}

on_both_setups! {
    async fn secrets_are_backed_up_encrypted_and_restored(app: &TestApp) {
        let (secret, hash) = with_secrets(app).await;
        let directory = app.directory().join("backup");
        let path = directory.display().to_string();
        let saved = pm(app, &["backup", &path, "-o", "json"]).await;
        assert_eq!((code(&saved), &printed_json(&saved)["secrets"]), (0, &json!("encrypted")), "{}", stderr(&saved));
        no_file_holds(&directory, &secret);
        no_file_holds(&directory, &hash);
        app::run_with(app.setup, &[("PM_BACKUP_PASSPHRASE", "")], async |target: &TestApp| {
            let unasked = pm(target, &["restore", &path, "--yes"]).await;
            assert_eq!(code(&unasked), 2, "{}", stderr(&unasked));
            assert!(stderr(&unasked).contains("PM_BACKUP_PASSPHRASE"), "{}", stderr(&unasked));
            let wrong = target.directory().join("wrong");
            fs::write(&wrong, "another\n").unwrap();
            let refused = pm(target, &["restore", &path, "--yes", "--passphrase-file", &wrong.display().to_string()]).await;
            assert!(code(&refused) == 1 && stderr(&refused).contains("the passphrase is wrong"), "{}", stderr(&refused));
            assert_eq!(code(&pm(target, &[&["restore", &path, "--yes"][..], NEVER].concat()).await), 2);
            let right = target.directory().join("right");
            fs::write(&right, "correct horse battery staple\n").unwrap();
            let right = right.display().to_string();
            let words = ["restore", &path, "--yes", "--with-keys", "--passphrase-file", &right];
            let restored = pm(target, &words).await;
            assert_eq!(code(&restored), 0, "{}", stderr(&restored));
            assert_eq!(webhook_secret(target).await, secret);
            assert_eq!(text(target, "SELECT hash FROM api_keys").await, hash);
            assert_eq!(number(target, "SELECT CAST(enabled AS BIGINT) FROM webhooks").await, 1);
        })
        .await;
    }

    async fn api_keys_are_restored_only_on_request(app: &TestApp) {
        let (secret, hash) = with_secrets(app).await;
        let revoked = ["key", "create", "--user-id", "seller", "--scope", "products:read", "-q"];
        assert_eq!(code(&pm(app, &revoked).await), 0);
        assert_eq!(code(&pm(app, &["key", "revoke", "2"]).await), 0);
        let path = app.directory().join("backup").display().to_string();
        assert_eq!(code(&pm(app, &["backup", &path]).await), 0);
        app::run(app.setup, async |target: &TestApp| {
            let restored = pm(target, &["restore", &path, "--yes", "-o", "json"]).await;
            assert_eq!((code(&restored), &printed_json(&restored)["keys_left_out"]), (0, &json!(1)), "{}", stderr(&restored));
            let said = stderr(&restored);
            assert!(said.contains("left out, and revoked here: 1 API key") && said.contains("--with-keys"), "{said}");
            assert_eq!(webhook_secret(target).await, secret);
            assert_eq!(number(target, "SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL").await, 2);
            assert_ne!(text(target, "SELECT hash FROM api_keys WHERE id = 1").await, hash);
        })
        .await;
    }

    async fn without_a_passphrase_secrets_are_omitted_only_on_request(app: &TestApp) {
        let (secret, hash) = with_secrets(app).await;
        let directory = app.directory().join("backup");
        let path = directory.display().to_string();
        let saved = pm(app, &["backup", &path, "--without-secrets", "-o", "json"]).await;
        assert_eq!((code(&saved), &printed_json(&saved)["secrets"]), (0, &json!("left out")), "{}", stderr(&saved));
        assert!(stderr(&saved).contains("not in this backup: webhook secrets"), "{}", stderr(&saved));
        no_file_holds(&directory, &secret);
        app::run_with(app.setup, &[("PM_BACKUP_PASSPHRASE", "")], async |target: &TestApp| {
            let refused = pm(target, &["backup", &target.directory().join("none").display().to_string()]).await;
            assert_eq!(code(&refused), 2, "{}", stderr(&refused));
            assert!(stderr(&refused).contains("webhook secrets") && stderr(&refused).contains("--without-secrets"));
            assert!(!target.directory().join("none").exists());
            let restored = pm(target, &["restore", &path, "--yes"]).await;
            assert_eq!(code(&restored), 0, "{}", stderr(&restored));
            assert!(stderr(&restored).contains("restored without secrets"), "{}", stderr(&restored));
            assert_ne!(webhook_secret(target).await, secret);
            assert_eq!(number(target, "SELECT CAST(enabled AS BIGINT) FROM webhooks").await, 0);
            assert_ne!(text(target, "SELECT hash FROM api_keys").await, hash);
            assert_eq!(number(target, "SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL").await, 1);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_without_a_secret_key_is_refused_on_postgres() {
    app::run(Setup::Embedded, async |source: &TestApp| {
        let (secret, _) = with_secrets(source).await;
        let path = source.directory().join("backup").display().to_string();
        assert_eq!(code(&pm(source, &["backup", &path]).await), 0);
        app::run_with(Setup::Full, &[("PM_SECRET_KEY", "")], async |target: &TestApp| {
            for words in [&[][..], &["--without-secrets"]] {
                let refused = pm(target, &[&["restore", &path, "--yes"], words].concat()).await;
                assert_eq!(code(&refused), 2, "{}", stderr(&refused));
                assert!(stderr(&refused).contains("set PM_SECRET_KEY"), "{}", stderr(&refused));
                assert_eq!(number(target, "SELECT count(*) FROM webhooks").await, 0);
            }
            // A secret of an earlier version.
            let row = "INSERT INTO webhooks (id, url, types, secret, enabled, created_at) VALUES (1, 'http://h/', '', 'whsec_x', 1, 0)";
            target.sql(row).await;
            let report = pm(target, &["doctor", "--quick", "-o", "csv"]).await;
            let report = String::from_utf8_lossy(&report.stdout).into_owned();
            let warning = "secrets,warning,the database contains unencrypted secrets of webhooks 1; set PM_SECRET_KEY";
            assert!(report.contains(warning), "{report}");
        })
        .await;
        app::run(Setup::Full, async |target: &TestApp| {
            let restored = pm(target, &["restore", &path, "--yes"]).await;
            assert_eq!(code(&restored), 0, "{}", stderr(&restored));
            assert_eq!(webhook_secret(target).await, secret);
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passphrase_is_long_and_changes_only_on_request() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        let (secret, _) = with_secrets(app).await;
        let path = app.directory().join("backup").display().to_string();
        let file = |name: &str, text: &str| {
            fs::write(app.directory().join(name), text).unwrap();
            name.to_owned()
        };
        let (short, first) = (file("short", "abc\n"), file("first", "correct horse battery\n"));
        let second = file("second", "another horse battery\n");
        let backup = async |words: &[&str]| pm(app, &[&["backup", &path, "--passphrase-file"], words].concat()).await;

        let refused = backup(&[&short]).await;
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
        assert!(
            stderr(&refused).contains("the passphrase in short has fewer than 12 characters"),
            "{}",
            stderr(&refused)
        );
        assert_eq!(code(&backup(&[&first]).await), 0);
        // A damaged key in the file's header looks to decryption like another passphrase.
        let damaged = secrets_file(Path::new(&path));
        let mut bytes = fs::read(&damaged).unwrap();
        let key = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
        bytes[key] = if bytes[key] == b'A' { b'B' } else { b'A' };
        fs::write(&damaged, bytes).unwrap();
        let mended = backup(&[&first]).await;
        assert_eq!(code(&mended), 0, "{}", stderr(&mended));
        let refused = backup(&[&second]).await;
        assert_eq!(code(&refused), 1, "{}", stderr(&refused));
        let message = stderr(&refused);
        assert!(message.contains("another passphrase encrypts") && message.contains("--replace"), "{message}");
        assert_eq!(code(&backup(&[&second, "--replace"]).await), 0);
        app::run(Setup::Embedded, async |target: &TestApp| {
            let second = app.directory().join(&second).display().to_string();
            let restored = pm(target, &["restore", &path, "--yes", "--passphrase-file", &second]).await;
            assert_eq!(code(&restored), 0, "{}", stderr(&restored));
            assert_eq!(webhook_secret(target).await, secret);
        })
        .await;
    })
    .await;
    app::run_with(Setup::Embedded, &[("PM_BACKUP_PASSPHRASE", "abc")], async |app: &TestApp| {
        let refused = pm(app, &["backup", "copy"]).await;
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
        assert!(stderr(&refused).contains("PM_BACKUP_PASSPHRASE has fewer than 12"), "{}", stderr(&refused));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_urls_stay_valid_after_a_restore() {
    app::run(Setup::Embedded, async |source: &TestApp| {
        fs::write(source.directory().join("cup.png"), images::png(64, 64)).unwrap();
        let words = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", "cup.png", "-q"];
        let added = pm(source, &words).await;
        assert_eq!(code(&added), 0, "{}", stderr(&added));
        source.drain().await;
        let id: Value = serde_json::from_slice(&added.stdout).unwrap();
        let image = source.product(&id).await["images"][0]["id"].to_string();
        let link = pm(source, &["image", "link", &image, "--width", "32", "-q"]).await;
        let link = String::from_utf8(link.stdout).unwrap();
        let directory = source.directory().join("backup").display().to_string();
        assert_eq!(code(&pm(source, &["backup", &directory]).await), 0);
        app::run(Setup::Embedded, async |target: &TestApp| {
            let restored = pm(target, &["restore", &directory, "--yes"]).await;
            assert_eq!(code(&restored), 0, "{}", stderr(&restored));
            let key = |app: &TestApp| fs::read_to_string(app.directory().join("data/url.key")).unwrap();
            assert_eq!(key(target), key(source));
            let again = pm(target, &["image", "link", &image, "--width", "32", "-q"]).await;
            assert_eq!(String::from_utf8(again.stdout).unwrap(), link);
        })
        .await;
        app::run(Setup::Full, async |target: &TestApp| {
            let restored = pm(target, &["restore", &directory, "--yes"]).await;
            assert_eq!(code(&restored), 0, "{}", stderr(&restored));
            assert!(stderr(&restored).contains("PM_URL_KEY is set to the content of"), "{}", stderr(&restored));
        })
        .await;
    })
    .await;
}

/// Finds the encrypted secrets of a backup.
fn secrets_file(backup: &Path) -> PathBuf {
    let folders = fs::read_dir(backup).unwrap().map(|entry| entry.unwrap().path());
    folders.map(|folder| folder.join("secrets.age")).find(|file| file.exists()).expect("encrypted secrets")
}
