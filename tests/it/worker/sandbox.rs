//! A kernel without a layer of the decoders' sandbox: what `pm` reports, and when it refuses. A seccomp filter
//! simulates it: calls fail as on a kernel that does not know them.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use pm::isolation::{Config, Decoders, Error};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::Value;
use tempfile::TempDir;

use super::isolation::{PROGRAM, decoders, outcome};
use crate::support::images;

const LANDLOCK: &[i64] =
    &[libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
const SECCOMP: &[i64] = &[libc::SYS_seccomp];

/// Runs `work` on a thread for which, and for whose children, these system calls do not exist.
fn without<T: Send>(calls: &[i64], work: impl FnOnce() -> T + Send) -> T {
    let rules: BTreeMap<i64, Vec<_>> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let processor = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, processor).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    let work = || {
        seccompiler::apply_filter(&filter).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn pm(directory: &TempDir, isolation: &str, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("PM_ISOLATION", isolation).env("PM_LOG_FORMAT", "json").current_dir(directory.path());
    command.args(words).stdin(Stdio::null());
    command
}

fn run(calls: &[i64], isolation: &str, words: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let migrated = pm(&directory, "off", &["migrate", "up"]).output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    without(calls, || pm(&directory, isolation, words).output().unwrap())
}

/// Returns the log of a server until it is ready.
fn log_of_a_start(calls: &[i64], isolation: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    without(calls, || {
        let mut command = pm(&directory, isolation, &["serve", "--listen", "127.0.0.1:0"]);
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(server.stderr.take().unwrap()).lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let serves = line["message"] == "serving";
            lines.push(line);
            if serves {
                break;
            }
        }
        server.kill().unwrap();
        server.wait().unwrap();
        lines
    })
}

fn isolation_of(output: &Output) -> (bool, Value) {
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = printed["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["check"] == "isolation").unwrap();
    (printed["healthy"].as_bool().unwrap(), found.clone())
}

#[test]
fn doctor_warns_about_a_missing_sandbox_layer_and_fails_if_required() {
    let output = run(LANDLOCK, "best-effort", &["doctor", "--json"]);
    let (healthy, found) = isolation_of(&output);
    assert_eq!((output.status.code(), healthy, &found["status"]), (Some(0), true, &"warning".into()), "{found}");
    let detail = found["detail"].as_str().unwrap();
    assert!(detail.contains("missing: landlock (") && detail.contains("CONFIG_SECURITY_LANDLOCK"), "{detail}");

    let output = run(LANDLOCK, "require", &["doctor", "--json"]);
    let (healthy, found) = isolation_of(&output);
    assert_eq!((output.status.code(), healthy, &found["status"]), (Some(1), false, &"failed".into()), "{found}");

    let (healthy, found) = isolation_of(&run(&[], "off", &["doctor", "--json"]));
    assert!(healthy && found["detail"].as_str().unwrap().starts_with("off"), "{found}");
}

#[test]
fn a_server_refuses_to_start_without_a_required_sandbox_layer() {
    for words in [&["serve", "--listen", "127.0.0.1:0"][..], &["worker"]] {
        for (calls, layer, feature) in
            [(LANDLOCK, "landlock (", "CONFIG_SECURITY_LANDLOCK"), (SECCOMP, "seccomp (", "CONFIG_SECCOMP_FILTER")]
        {
            let output = run(calls, "require", words);
            let printed = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{printed}");
            assert!(
                printed.contains("PM_ISOLATION=require") && printed.contains(layer) && printed.contains(feature),
                "{printed}"
            );
        }
    }
}

#[test]
fn a_server_logs_missing_sandbox_layers_in_one_line_and_starts() {
    let lines = log_of_a_start(&[LANDLOCK, SECCOMP].concat(), "true");
    let warnings: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{lines:?}");
    let printed = warnings[0]["message"].as_str().unwrap();
    assert!(
        printed.contains("seccomp (a compromised decoder") && printed.contains("landlock (only seccomp"),
        "{printed}"
    );
    let serving = lines.last().unwrap()["isolation"].as_str().unwrap();
    assert!(serving.starts_with("best-effort without") && serving.ends_with("seccomp, landlock"), "{serving}");
    let lines = log_of_a_start(&[], "false");
    assert_eq!(lines.last().unwrap()["isolation"], "off", "{lines:?}");
}

/// A decoder that lacks a layer, in a process that requires all and found all at its start.
#[test]
fn an_image_is_not_decoded_without_a_required_sandbox_layer() {
    let process = |needs_layers| {
        let time_limit = Duration::from_secs(10);
        let (program, wall_clock_limit) = (Some(PROGRAM.into()), time_limit * 6);
        let decoders = Decoders::new(&Config { program, time_limit, wall_clock_limit, needs_layers, processes: 1 });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(outcome(&decoders, images::jpeg(64, 64)))
    };
    for calls in [LANDLOCK, SECCOMP] {
        let error = without(calls, || process(true)).unwrap_err();
        assert!(matches!(error, Error::Unprotected(_)) && error.is_transient(), "{error:?}");
        assert_eq!(without(calls, || process(false)).unwrap(), 4);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Landlock needs support from the kernel.
    if runtime.block_on(async { decoders(PROGRAM.into()).layers().await.unwrap().are_complete() }) {
        assert_eq!(process(true).unwrap(), 4);
    }
}
