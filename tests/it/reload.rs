//! SIGHUP reloads the log filter and the certificate; invalid ones do not end the process.
#![cfg(unix)]

use std::{fs, path::Path, sync::mpsc::Receiver, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::memory::{Serving, serving};

/// Waits for a line that contains all `words`.
fn wait_for(lines: &Receiver<String>, words: &[&str]) -> String {
    loop {
        let line =
            lines.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("no log line contains {words:?}"));
        if words.iter().all(|word| line.contains(word)) {
            return line;
        }
    }
}

fn hang_up(server: &Serving) {
    kill_process(Pid::from_child(&server.child), Signal::HUP).unwrap();
}

fn write_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
}

#[test]
fn sighup_changes_a_servers_log_filter_and_keeps_it_if_the_new_is_invalid() {
    let directory = tempfile::tempdir().unwrap();
    let dotenv = directory.path().join(".env");
    fs::write(&dotenv, "PM_LOG=info\n").unwrap();
    let mut server = serving(directory.path(), &["--no-worker"], &[]);
    hang_up(&server);
    wait_for(&server.lines, &["SIGHUP: the log filter is the same", "\"filter\":\"info\""]);

    fs::write(&dotenv, "PM_LOG=info,pm::cli=debug\nPM_WORKERS=3\n").unwrap();
    hang_up(&server);
    wait_for(
        &server.lines,
        &["SIGHUP: the log filter changes", "\"filter\":\"info,pm::cli=debug\"", "\"old\":\"info\""],
    );

    for wrong in ["PM_LOG=info,pm=loudly\n", "PM_WORKER_LISTEN=nowhere\n"] {
        fs::write(&dotenv, wrong).unwrap();
        hang_up(&server);
        wait_for(&server.lines, &["SIGHUP: the settings cannot be used; the log filter stays as it is"]);
    }
    fs::write(&dotenv, "PM_LOG=error\n").unwrap();
    hang_up(&server);
    wait_for(&server.lines, &["the log filter changes", "\"filter\":\"error\"", "\"old\":\"info,pm::cli=debug\""]);
    fs::write(&dotenv, "PM_LOG=info\nPM_CORS_ORIGINS=*\n").unwrap();
    hang_up(&server);
    wait_for(&server.lines, &["SIGHUP: the log filter has changed", "\"filter\":\"info\"", "\"old\":\"error\""]);
    wait_for(&server.lines, &["used from the next start on", "cors_origins"]);
    assert!(server.child.try_wait().unwrap().is_none(), "it keeps running");
}

#[test]
fn sighup_reloads_a_servers_certificate() {
    let directory = tempfile::tempdir().unwrap();
    write_certificate(directory.path());
    let variables = [("PM_TLS_CERT", "cert.pem"), ("PM_TLS_KEY", "key.pem")];
    let mut server = serving(directory.path(), &["--no-worker"], &variables);
    // The server prints its address just before it loads the certificate.
    let same = "reloaded the certificate; it is unchanged";
    while !server.lines.recv_timeout(Duration::from_millis(200)).is_ok_and(|line| line.contains(same)) {
        hang_up(&server);
    }
    fs::write(directory.path().join("cert.pem"), "half a certificate").unwrap();
    hang_up(&server);
    let refused = ["cannot use the new certificate; keeping the old", "\"reason\":\"it has no line `-----BEGIN"];
    wait_for(&server.lines, &refused);
    write_certificate(directory.path());
    hang_up(&server);
    wait_for(&server.lines, &["loaded a new certificate"]);
    assert!(server.child.try_wait().unwrap().is_none(), "it keeps running");
}

#[test]
fn sighup_changes_a_workers_log_filter() {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    let directory = tempfile::tempdir().unwrap();
    let program = assert_cmd::cargo::cargo_bin!("pm");
    let migrated = Command::new(program).env_clear().current_dir(directory.path()).args(["migrate", "up"]).status();
    assert!(migrated.unwrap().success());
    let mut command = Command::new(program);
    command.env_clear().env("PM_LOG_FORMAT", "json").current_dir(directory.path());
    let mut worker = command.args(["worker"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(worker.stderr.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    wait_for(&lines, &["working on images"]);
    fs::write(directory.path().join(".env"), "PM_LOG=debug\n").unwrap();
    kill_process(Pid::from_child(&worker), Signal::HUP).unwrap();
    wait_for(&lines, &["SIGHUP: the log filter changes", "\"filter\":\"debug\""]);
    assert!(worker.try_wait().unwrap().is_none(), "it keeps running");
    worker.kill().unwrap();
    worker.wait().unwrap();
}
