//! Pictures that bring their decoder down, and what the decoder's process can and cannot do.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Stdio, time::Duration};

use bytes::Bytes;
use pm::{
    imaging::{Limits, default_presets},
    isolation::{Config, Decoders, Error, Picture, Walls},
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Origin, on_both_setups, pictures};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pm");

fn decoders(program: PathBuf) -> Decoders {
    let time_limit = Duration::from_secs(10);
    Decoders::new(Config { program: Some(program), time_limit, patience: time_limit * 6, processes: 2 })
}

fn picture(source: Vec<u8>) -> Picture {
    Picture { source: Bytes::from(source), presets: default_presets(), limits: Limits::default() }
}

/// What debug builds take as the sign to break down.
fn marked(mut source: Vec<u8>) -> Vec<u8> {
    source.extend_from_slice(b"pm-fault");
    source
}

/// A program that becomes a decoder with this fault.
fn faulty(fault: &str) -> (TempDir, PathBuf) {
    script(&format!("DECODER_FAULT={fault} exec {PROGRAM} \"$@\""))
}

fn script(line: &str) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("decoder");
    fs::write(&program, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (home, program)
}

async fn outcome(decoders: &Decoders, source: Vec<u8>) -> Result<usize, Error> {
    let picture = picture(source);
    let needed = decoders.memory_needed(&picture).await?;
    Ok(decoders.process(picture, needed, ()).await?.renditions.len())
}

#[tokio::test]
async fn a_process_makes_of_a_picture_what_a_thread_makes_of_it() {
    let (threads, processes) = (Decoders::new(Config::default()), decoders(PROGRAM.into()));
    assert_eq!((threads.name(), processes.name()), ("threads", "processes"));
    for source in [pictures::jpeg(1200, 800), pictures::png(300, 300)] {
        let picture = picture(source);
        let needed = threads.memory_needed(&picture).await.unwrap();
        assert_eq!(processes.memory_needed(&picture).await.unwrap(), needed);
        let by_thread = threads.process(picture.clone(), needed, ()).await.unwrap();
        let by_process = processes.process(picture, needed, ()).await.unwrap();
        assert_eq!(by_process.renditions, by_thread.renditions);
        assert_eq!(by_process.thumbhash, by_thread.thumbhash);
    }
    let refused = outcome(&processes, b"not a picture".to_vec()).await.unwrap_err();
    assert_eq!(refused.to_string(), outcome(&threads, b"not a picture".to_vec()).await.unwrap_err().to_string());
    assert!(!refused.is_transient());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_decoder_can_open_no_file_and_reach_nobody() {
    let walls = decoders(PROGRAM.into()).walls().await.unwrap();
    // Landlock is a matter of the kernel.
    let all = Walls {
        process: true,
        memory: true,
        processor_time: true,
        files: true,
        network: true,
        system_calls: true,
        landlock: walls.landlock,
    };
    assert_eq!(walls, all);
    assert_eq!(Decoders::new(Config::default()).walls().await.unwrap(), Walls::default());
}

#[tokio::test]
async fn a_decoder_that_breaks_down_is_told_from_a_bad_picture_and_the_next_picture_has_another() {
    for fault in ["abort", "overflow", "memory"] {
        let (_home, program) = faulty(fault);
        let decoders = decoders(program);
        let error = outcome(&decoders, marked(pictures::jpeg(64, 64))).await.unwrap_err();
        assert!(matches!(error, Error::Died(_)) && error.is_transient(), "{fault}: {error:?}");
        assert_eq!(outcome(&decoders, pictures::jpeg(64, 64)).await.unwrap(), 4, "{fault}");
    }
}

#[tokio::test]
async fn a_picture_has_no_more_than_its_share_of_processor_time() {
    let (_home, program) = faulty("spin");
    let (limit, patience) = (Duration::from_secs(1), Duration::from_secs(60));
    let decoders = Decoders::new(Config { program: Some(program), time_limit: limit, patience, processes: 1 });
    let error = outcome(&decoders, marked(pictures::jpeg(64, 64))).await.unwrap_err();
    assert!(matches!(error, Error::TooSlow(told) if told == limit) && !error.is_transient(), "{error:?}");
    assert_eq!(error.code().as_str(), "too_complex");
}

#[tokio::test]
async fn a_program_that_is_no_decoder_is_an_error_and_not_the_pictures_fault() {
    let ((_silent, silent), (_echo, echo)) = (script("sleep 60"), script("exec cat >&0"));
    let decoders_of = |program, patience| {
        Decoders::new(Config { program: Some(program), time_limit: Duration::ZERO, patience, processes: 1 })
    };
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(60));
    let programs =
        [(silent, short, "no answer"), ("/bin/true".into(), long, "ended before"), (echo, long, "was not asked")];
    for (program, patience, told) in programs {
        let error = outcome(&decoders_of(program, patience), pictures::jpeg(64, 64)).await.unwrap_err();
        assert!(matches!(&error, Error::Died(how) if how.contains(told)), "{told}: {error:?}");
    }
    let error = outcome(&decoders_of("/nowhere/decoder".into(), long), pictures::jpeg(64, 64)).await.unwrap_err();
    assert!(matches!(error, Error::NotStarted(_)), "{error:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn whoever_stops_waiting_ends_the_decoder() {
    let sign = format!("PM_TEST_SIGN={}", uuid::Uuid::new_v4().simple());
    let (_home, program) = script(&format!("{sign} DECODER_FAULT=spin exec {PROGRAM} \"$@\""));
    let decoders = decoders(program);
    let work = outcome(&decoders, marked(pictures::jpeg(64, 64)));
    assert!(tokio::time::timeout(Duration::from_secs(2), work).await.is_err());
    wait_until("no decoder goes on", || processes_with(&sign) == 0).await;
}

/// Processes that were started with this variable.
fn processes_with(variable: &str) -> usize {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("environ")).ok());
    processes.filter(|environ| environ.windows(variable.len()).any(|bytes| bytes == variable.as_bytes())).count()
}

on_both_setups! {
    async fn a_picture_that_kills_its_decoders_ends_as_poison_and_harms_no_other(app: &TestApp) {
        let (_home, program) = faulty("abort");
        let worker = app.app.clone().isolated_by(program).worker(2).unwrap();
        let origin = Origin::start().await;
        origin.serve("/good.jpg", "image/jpeg", pictures::jpeg(80, 60));
        origin.serve("/poison.jpg", "image/jpeg", marked(pictures::jpeg(64, 64)));
        let good = app.create(&[origin.url("/good.jpg")]).await["id"].clone();
        let poison = app.create(&[origin.url("/poison.jpg"), origin.url("/good.jpg")]).await["id"].clone();
        for _ in 0..3 {
            worker.drain().await.unwrap();
            app.let_time_pass().await;
        }
        assert_eq!(app.drain().await, 0);
        assert_eq!(app.product(&good).await["status"], "ready");
        let product = app.product(&poison).await;
        let (bad, beside) = (&product["images"][0], &product["images"][1]);
        assert_eq!((&bad["status"], &bad["attempts"]), (&json!("failed"), &json!(3)), "{product}");
        assert_eq!(bad["error"]["code"], "poison");
        assert_eq!(beside["status"], "ready");
    }
}

/// The kernel ends them; nobody is left who could.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_decoders_of_a_killed_worker_end_with_it() {
    let home = tempfile::tempdir().unwrap();
    let origin = Origin::start().await;
    origin.serve("/endless.jpg", "image/jpeg", marked(pictures::jpeg(64, 64)));
    let command = |words: &[&str]| {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.env_clear().env("DECODER_FAULT", "spin").env("PM_FETCH_ALLOW", "127.0.0.0/8");
        command.current_dir(home.path()).args(words).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let url = origin.url("/endless.jpg");
    let add = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", &url];
    assert!(command(&add).status().await.unwrap().success());
    let mut worker = command(&["worker"]).spawn().unwrap();
    let own = worker.id().unwrap();
    // One waits and its copy works.
    wait_until("a decoder is at work", || descendants(own).len() >= 2).await;
    let decoders = descendants(own);
    worker.kill().await.unwrap();
    wait_until("no decoder is left", || !decoders.iter().any(|id| is_decoder(*id))).await;
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to this: {what}");
}

fn is_decoder(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|words| words.ends_with(b"\0decoder\0"))
}

/// The processes that `id` started, theirs, and so on.
fn descendants(id: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let children = ids.filter(|child| parent(*child) == Some(id)).collect::<Vec<_>>();
    children.into_iter().flat_map(|child| descendants(child).into_iter().chain([child])).collect()
}

fn parent(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}
