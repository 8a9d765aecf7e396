//! Maintenance commands: `pm doctor`, `pm gc`, `pm backup` and `pm restore`.

mod backup;
mod belonging;
mod copies;
mod damage;
mod doctor;
mod forged;
mod gc;
mod gc_turn;
mod private;
mod repair;
mod secrets;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use assert_cmd::cargo::cargo_bin;
use pm::blobs::BlobKey;
use serde_json::Value;

use crate::support::TestApp;

/// Longer than the grace time of an unreferenced blob.
const LONG_AGO: Duration = Duration::from_secs(3 * 3_600);

/// Runs `pm` with the settings of `app`, as another process beside it.
pub async fn pm(app: &TestApp, words: &[&str]) -> Output {
    let mut command = Command::new(cargo_bin!("pm"));
    command.env_clear().envs(&app.environment).current_dir(app.directory()).args(words).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().expect("pm starts")).await.unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn json(output: &Output) -> Value {
    let printed = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed} {}", stderr(output)))
}

/// Returns the full report of `pm doctor`; its exit code must match.
pub async fn doctor(app: &TestApp, words: &[&str]) -> Value {
    let output = pm(app, &[&["doctor", "--json"], words].concat()).await;
    let printed = json(&output);
    // A test that holds SQLite's write lock also fails the check of writes.
    let unreachable = failed(&printed).iter().any(|check| ["database", "cache", "queue", "storage"].contains(check));
    let expected = if printed["healthy"] == true {
        0
    } else if unreachable {
        5
    } else {
        1
    };
    assert_eq!(code(&output), expected, "{printed} {}", stderr(&output));
    printed
}

/// Returns the names of the failed checks.
fn failed(printed: &Value) -> Vec<&str> {
    let checks = printed["checks"].as_array().unwrap().iter();
    checks.filter(|check| check["status"] != "ok").map(|check| check["check"].as_str().unwrap()).collect()
}

/// Returns the keys of a product's renditions.
fn keys(product: &Value) -> Vec<BlobKey> {
    let images = product["images"].as_array().unwrap().iter();
    let made = images.flat_map(|image| image["renditions"].as_array().unwrap());
    made.map(|made| BlobKey::parse(made["url"].as_str().unwrap().trim_start_matches("/images/")).unwrap()).collect()
}

fn file_of(app: &TestApp, key: &str) -> PathBuf {
    app.directory().join("data/blobs").join(key)
}

/// Changes one byte in the middle of a file.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Cuts a file in half.
fn cut(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

fn make_old(app: &TestApp, key: &str) {
    let file = fs::File::options().write(true).open(file_of(app, key)).unwrap();
    file.set_modified(SystemTime::now() - LONG_AGO).unwrap();
}
