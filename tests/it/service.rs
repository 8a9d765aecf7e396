//! Notifications to systemd.
#![cfg(target_os = "linux")]

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    time::Duration,
};

use assert_cmd::cargo::cargo_bin;
use rustix::process::{Pid, Signal, kill_process};

/// Returns the next notification, within a time that suits a slow machine.
fn heard(socket: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let length = loop {
        match socket.recv(&mut message) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => break outcome.expect("a message"),
        }
    };
    String::from_utf8_lossy(&message[..length]).trim().to_owned()
}

fn started(words: &[&str], directory: &tempfile::TempDir) -> (Child, UnixDatagram) {
    let address = directory.path().join("notify");
    let socket = UnixDatagram::bind(&address).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let mut command = Command::new(cargo_bin!("pm"));
    command.env_clear().env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "200000").current_dir(directory.path());
    let child = command.args(words).stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("pm starts");
    (child, socket)
}

#[test]
fn systemd_is_notified_of_ready_watchdog_and_stopping() {
    for words in [&["serve", "--listen", "127.0.0.1:0"][..], &["worker", "--concurrency", "1"]] {
        let directory = tempfile::tempdir().expect("a directory");
        let migrated =
            Command::new(cargo_bin!("pm")).env_clear().current_dir(&directory).args(["migrate", "up"]).status();
        assert!(migrated.expect("pm starts").success());
        let (mut child, socket) = started(words, &directory);
        assert_eq!(heard(&socket), "READY=1", "{words:?}");
        for _ in 0..3 {
            assert_eq!(heard(&socket), "WATCHDOG=1", "{words:?}");
        }
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM).expect("a signal");
        let last = std::iter::repeat_with(|| heard(&socket)).find(|message| message != "WATCHDOG=1");
        assert_eq!(last.as_deref(), Some("STOPPING=1"), "{words:?}");
        assert!(child.wait().expect("an end").success(), "{words:?}");
    }
}
