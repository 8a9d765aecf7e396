//! Forged backups with valid checksums: each is refused by name, and nothing is changed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{backup::ready_product, code, json as printed_json, pm, stderr};
use crate::support::{TestApp, app, on_both_setups};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A backup in which one thing at a time is forged.
struct Forged {
    directory: PathBuf,
}

impl Forged {
    fn tables(&self) -> PathBuf {
        let folder = self.manifest()["folder"].as_str().unwrap().to_owned();
        self.directory.join(folder)
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.directory.join("manifest.json")).unwrap()).unwrap()
    }

    /// Changes the manifest and updates its checksum.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let tables = self.tables();
        let mut manifest = self.manifest();
        change(&mut manifest);
        manifest["checksum"] = "0".repeat(64).into();
        let text = serde_json::to_string_pretty(&manifest).unwrap();
        let sum = hex::encode(Sha256::digest(&text));
        let sealed = text.replace(&"0".repeat(64), &sum);
        fs::write(self.directory.join("manifest.json"), &sealed).unwrap();
        fs::write(tables.join("manifest.json"), &sealed).unwrap();
    }

    fn change_table(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.change(|manifest| {
            let tables = manifest["tables"].as_array_mut().unwrap();
            change(tables.iter_mut().find(|table| table["name"] == name).unwrap());
        });
    }

    /// Changes the first row of a table and updates the checksums.
    fn change_row(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let file = self.tables().join(format!("{name}.ndjson"));
        let text = fs::read_to_string(&file).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        let mut row: Value = serde_json::from_str(first).unwrap();
        row.as_object_mut().unwrap().remove("#");
        change(&mut row);
        let object = row.to_string();
        let object = object.strip_suffix('}').unwrap();
        let sum = hex::encode(&Sha256::digest(object)[..8]);
        fs::write(&file, format!("{object},\"#\":\"{sum}\"}}\n{rest}")).unwrap();
        let sum = hex::encode(Sha256::digest(fs::read(&file).unwrap()));
        self.change_table(name, |table| table["sha256"] = sum.into());
    }
}

type Forgery = (&'static str, Box<dyn Fn(&Forged, &Path)>);

fn forgery(reason: &'static str, forge: impl Fn(&Forged, &Path) + 'static) -> Forgery {
    (reason, Box::new(forge))
}

fn names_and_numbers() -> Vec<Forgery> {
    vec![
        forgery("folder \"../outside\"", |forged, outside| {
            copy(&forged.tables(), outside);
            forged.change(|manifest| manifest["folder"] = "../outside".into());
        }),
        forgery("folder \"/etc\"", |forged, _| forged.change(|manifest| manifest["folder"] = "/etc".into())),
        forgery("folder \"tables-1/../..\"", |forged, _| {
            forged.change(|manifest| manifest["folder"] = "tables-1/../..".into());
        }),
        forgery("\"../outside/users\" is not a valid table name", |forged, _| {
            forged.change_table("users", |table| table["name"] = "../outside/users".into());
        }),
        forgery("users is listed twice", |forged, _| {
            forged.change_table("products", |table| table["name"] = "users".into());
        }),
        forgery("users cannot have 18446744073709551615 rows", |forged, _| {
            forged.change_table("users", |table| table["rows"] = u64::MAX.into());
        }),
        forgery("invalid value: integer `-1`", |forged, _| {
            forged.change_table("users", |table| table["rows"] = (-1).into());
        }),
        forgery("products cannot be -5", |forged, _| {
            forged.change_table("products", |table| table["last_number"] = (-5).into());
        }),
        forgery("products cannot be 9223372036854775807", |forged, _| {
            forged.change_table("products", |table| table["last_number"] = i64::MAX.into());
        }),
        forgery("the SHA-256 of the table users", |forged, _| {
            forged.change_table("users", |table| table["sha256"] = "../x".into());
        }),
        forgery("`created_at` is not", |forged, _| {
            forged.change(|manifest| manifest["created_at"] = "\u{1b}[2J".into());
        }),
    ]
}

fn links_and_rows() -> Vec<Forgery> {
    vec![
        forgery("users.ndjson is a symbolic link", |forged, outside| {
            let file = forged.tables().join("users.ndjson");
            fs::rename(&file, outside.with_extension("rows")).unwrap();
            symlink(outside.with_extension("rows"), file).unwrap();
        }),
        forgery("blobs is a symbolic link", |forged, outside| {
            let blobs = forged.directory.join("blobs");
            fs::rename(&blobs, outside.with_extension("blobs")).unwrap();
            symlink(outside.with_extension("blobs"), blobs).unwrap();
        }),
        forgery("manifest.json is a symbolic link", |forged, outside| {
            let file = forged.directory.join("manifest.json");
            fs::rename(&file, outside.with_extension("json")).unwrap();
            symlink(outside.with_extension("json"), file).unwrap();
        }),
        forgery("the invalid blob key \"../../../../etc/passwd\"", |forged, _| {
            forged.change_row("renditions", |row| row["blob_key"] = "../../../../etc/passwd".into());
        }),
        forgery("the invalid blob key \"/etc/passwd\"", |forged, _| {
            forged.change_row("images", |row| row["source_key"] = "/etc/passwd".into());
        }),
        forgery("has a negative bytes", |forged, _| {
            forged.change_row("renditions", |row| row["bytes"] = (-1).into());
        }),
        forgery("has an invalid id", |forged, _| {
            forged.change_row("products", |row| row["id"] = i64::MAX.into());
        }),
        forgery("a product_name of the wrong type", |forged, _| {
            forged.change_row("products", |row| row["product_name"] = 7.into());
        }),
        forgery("has a hash, which only secrets.age may hold", |forged, _| {
            forged.change_row("api_keys", |row| row["hash"] = "0".repeat(64).into());
        }),
        forgery("has a secret, which only secrets.age may hold", |forged, _| {
            forged.change_row("webhooks", |row| row["secret"] = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz".into());
        }),
    ]
}

/// Creates a backup with a row of each kind.
async fn made(app: &TestApp) -> PathBuf {
    ready_product(app).await;
    assert_eq!(code(&pm(app, &["webhook", "add", "http://127.0.0.1:9/hook"]).await), 0);
    assert_eq!(code(&pm(app, &["key", "create", "--user-id", "seller", "--scope", "admin", "-q"]).await), 0);
    let saved = pm(app, &["backup", "backup"]).await;
    assert_eq!(code(&saved), 0, "{}", stderr(&saved));
    app.directory().join("backup")
}

fn blobs(app: &TestApp) -> usize {
    let folders = fs::read_dir(app.directory().join("data/blobs")).unwrap();
    folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
}

async fn refuses(app: &TestApp, forgeries: Vec<Forgery>) {
    let whole = made(app).await;
    app::run(app.setup, async |target: &TestApp| {
        let before = blobs(target);
        for (number, (reason, forge)) in forgeries.iter().enumerate() {
            let home = target.directory().join(format!("forged-{number}"));
            let forged = Forged { directory: home.join("backup") };
            copy(&whole, &forged.directory);
            forge(&forged, &home.join("outside"));
            let directory = forged.directory.display().to_string();
            for words in [&["--with-keys"][..], &["--allow-missing"]] {
                let refused = pm(target, &[&["restore", directory.as_str(), "--yes"], words].concat()).await;
                assert_eq!(code(&refused), 1, "{reason}: {}", stderr(&refused));
                assert!(stderr(&refused).contains(reason), "{reason}: {}", stderr(&refused));
                assert!(stderr(&refused).contains("nothing was changed"), "{reason}: {}", stderr(&refused));
            }
            assert_eq!(target.number("SELECT count(*) FROM users").await, 0, "{reason}");
            assert_eq!(blobs(target), before, "{reason}");
        }
        let restored = pm(target, &["restore", &whole.display().to_string(), "--yes", "-o", "json"]).await;
        assert_eq!(
            (code(&restored), &printed_json(&restored)["keys_left_out"]),
            (0, &json!(1)),
            "{}",
            stderr(&restored)
        );
    })
    .await;
}

on_both_setups! {
    async fn forged_names_and_numbers_are_refused(app: &TestApp) {
        refuses(app, names_and_numbers()).await;
    }

    async fn links_and_forged_rows_are_refused(app: &TestApp) {
        refuses(app, links_and_rows()).await;
    }

    async fn a_backup_with_links_is_neither_added_to_nor_repaired_from(app: &TestApp) {
        let directory = made(app).await;
        let (blobs, elsewhere) = (directory.join("blobs"), app.directory().join("elsewhere"));
        fs::rename(&blobs, &elsewhere).unwrap();
        symlink(&elsewhere, &blobs).unwrap();
        let refused = pm(app, &["backup", "backup"]).await;
        assert!(code(&refused) == 1 && stderr(&refused).contains("blobs is a symbolic link"), "{}", stderr(&refused));
        let refused = pm(app, &["doctor", "--repair", "--from", "backup"]).await;
        assert!(code(&refused) == 1 && stderr(&refused).contains("blobs is a symbolic link"), "{}", stderr(&refused));
    }
}
