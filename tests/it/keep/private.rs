//! Files and directories of pm are accessible only to their owner, whatever the umask.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use assert_cmd::cargo::cargo_bin;

use super::{code, stderr};
use crate::support::{TestApp, images, on_both_setups};

/// Runs `pm` with the umask 000.
fn command(app: &TestApp, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(&app.environment).current_dir(app.directory());
    command.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(cargo_bin!("pm")).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn pm(app: &TestApp, words: &[&str]) -> Output {
    let mut command = command(app, words);
    tokio::task::spawn_blocking(move || command.output().expect("pm starts")).await.unwrap()
}

/// Kills the process on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn walk(path: &Path, all: &mut Vec<PathBuf>) {
    all.push(path.to_owned());
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), all));
    }
}

fn all_in(path: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    walk(path, &mut all);
    all
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn open(path: &Path) -> Vec<String> {
    let open = all_in(path).into_iter().filter(|path| mode(path) & 0o077 != 0);
    open.map(|path| format!("{} {:o}", path.display(), mode(&path))).collect()
}

/// Gives all users all permissions on existing files.
fn open_up(path: &Path) {
    for path in all_in(path) {
        let mode = if path.is_dir() { 0o777 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

on_both_setups! {
    async fn files_are_private_with_any_umask(app: &TestApp) {
        fs::write(app.directory().join("cup.png"), images::png(64, 64)).unwrap();
        let worker = Running(command(app, &["worker", "--concurrency", "1"]).stderr(Stdio::null()).spawn().unwrap());
        let words = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", "cup.png", "-q"];
        let added = pm(app, &words).await;
        assert_eq!(code(&added), 0, "{}", stderr(&added));
        let id = serde_json::from_slice(&added.stdout).unwrap();
        assert_eq!(app.settled(&id).await["status"], "ready");
        let (data, backup) = (app.directory().join("data"), app.directory().join("backups/shop"));
        // The store's marker was written by the test's own process, which keeps its umask.
        let marker = data.join("blobs/installation.json");
        fs::set_permissions(marker, fs::Permissions::from_mode(0o600)).unwrap();
        let saved = pm(app, &["backup", "backups/shop"]).await;
        assert_eq!(code(&saved), 0, "{}", stderr(&saved));
        assert!(all_in(&data.join("blobs")).len() > 8 && all_in(&backup).len() > 12, "there is something to look at");
        assert_eq!(open(&data), [""; 0]);
        assert_eq!(open(&backup), [""; 0]);
        drop(worker);
    }

    async fn permissions_of_others_are_removed_at_the_start_with_one_log_line(app: &TestApp) {
        fs::write(app.directory().join("cup.png"), images::png(64, 64)).unwrap();
        let words = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", "cup.png", "-q"];
        assert_eq!(code(&pm(app, &words).await), 0);
        let (data, backup) = (app.directory().join("data"), app.directory().join("backup"));
        assert_eq!(code(&pm(app, &["backup", "backup"]).await), 0);
        open_up(&data);
        open_up(&backup);
        fs::write(app.directory().join("other"), "not pm's").unwrap();
        fs::set_permissions(app.directory().join("other"), fs::Permissions::from_mode(0o644)).unwrap();

        let read = pm(app, &["product", "list"]).await;
        assert!(code(&read) == 0 && mode(&data) == 0o777, "a command that reads changes no mode");
        let started = pm(app, &words).await;
        assert_eq!(code(&started), 0, "{}", stderr(&started));
        assert_eq!(stderr(&started).matches("removed the access of other users").count(), 1, "{}", stderr(&started));
        assert_eq!(open(&data), [""; 0]);
        assert_eq!(mode(&app.directory().join("other")), 0o644);
        let again = pm(app, &words).await;
        assert!(!stderr(&again).contains("access of other users"), "{}", stderr(&again));
        assert_eq!(code(&pm(app, &["backup", "backup"]).await), 0);
        assert_eq!(open(&backup), [""; 0]);
    }
}
