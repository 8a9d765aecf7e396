//! Images that crash their decoder, and the rights of a decoder process.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use pm::{
    imaging::{Limits, default_presets},
    isolation::{Config, DecodeTask, Decoders, Error, SandboxLayers},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    api::uploads::upload,
    support::{Origin, Setup, app, images, on_both_setups},
};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pm");

pub fn decoders(program: PathBuf) -> Decoders {
    let time_limit = Duration::from_secs(10);
    Decoders::new(&Config {
        program: Some(program),
        time_limit,
        wall_clock_limit: time_limit * 6,
        processes: 2,
        ..Config::default()
    })
}

fn image(source: Vec<u8>) -> DecodeTask {
    DecodeTask { source: Bytes::from(source), presets: default_presets(), limits: Limits::default() }
}

/// The mark that makes a debug build's decoder fail.
pub fn marked(mut source: Vec<u8>) -> Vec<u8> {
    source.extend_from_slice(b"pm-fault");
    source
}

/// Returns a program that becomes a decoder with this fault.
pub fn faulty(fault: &str) -> (TempDir, PathBuf) {
    script(&format!("DECODER_FAULT={fault} exec {PROGRAM} \"$@\""))
}

fn script(line: &str) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("decoder");
    fs::write(&program, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (home, program)
}

pub async fn outcome(decoders: &Decoders, source: Vec<u8>) -> Result<usize, Error> {
    let image = image(source);
    let needed = decoders.memory_needed(&image).await?;
    Ok(decoders.process(image, needed, ()).await?.renditions.len())
}

#[tokio::test]
async fn a_decoder_process_makes_the_same_renditions_as_a_thread() {
    let (threads, processes) = (Decoders::new(&Config::default()), decoders(PROGRAM.into()));
    assert_eq!((threads.name(), processes.name()), ("threads", "processes"));
    for source in [images::jpeg(1200, 800), images::png(300, 300)] {
        let image = image(source);
        let needed = threads.memory_needed(&image).await.unwrap();
        assert_eq!(processes.memory_needed(&image).await.unwrap(), needed);
        let by_thread = threads.process(image.clone(), needed, ()).await.unwrap();
        let by_process = processes.process(image, needed, ()).await.unwrap();
        assert_eq!(by_process.renditions, by_thread.renditions);
        assert_eq!(by_process.thumbhash, by_thread.thumbhash);
    }
    let refused = outcome(&processes, b"not an image".to_vec()).await.unwrap_err();
    assert_eq!(refused.to_string(), outcome(&threads, b"not an image".to_vec()).await.unwrap_err().to_string());
    assert!(!refused.is_transient());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_decoder_cannot_open_files_or_connect() {
    let layers = decoders(PROGRAM.into()).layers().await.unwrap();
    // Landlock needs support from the kernel.
    let all = SandboxLayers {
        process: true,
        memory: true,
        processor_time: true,
        privileges: true,
        files: true,
        network: true,
        system_calls: true,
        landlock: layers.landlock,
    };
    assert_eq!(layers, all);
    assert_eq!(Decoders::new(&Config::default()).layers().await.unwrap(), SandboxLayers::default());
}

#[tokio::test]
async fn a_crashed_decoder_is_not_a_bad_image_and_is_replaced() {
    for fault in ["abort", "overflow", "memory"] {
        let (_home, program) = faulty(fault);
        let decoders = decoders(program);
        let error = outcome(&decoders, marked(images::jpeg(64, 64))).await.unwrap_err();
        assert!(matches!(error, Error::Died(_)) && error.is_transient(), "{fault}: {error:?}");
        assert_eq!(outcome(&decoders, images::jpeg(64, 64)).await.unwrap(), 4, "{fault}");
    }
}

/// Captures log lines while the guard lives.
fn logged() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(sink.clone())).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn an_answer_for_another_task_is_rejected() {
    for (fault, expected) in [
        ("extra", "sent data after its answer"),
        ("late", "sent data after its answer"),
        ("nonce", "sent an answer to another task"),
        ("early", "sent an answer to another task"),
    ] {
        let (_home, program) = script(&format!(
            "echo started >>\"$0.starts\"\n[ $(wc -l <\"$0.starts\") = 1 ] && export DECODER_FAULT={fault}\nexec {PROGRAM} \"$@\""
        ));
        let starts = program.with_extension("starts");
        let decoders = decoders(program);
        let (lines, _guard) = logged();
        let error = outcome(&decoders, marked(images::jpeg(64, 64))).await.unwrap_err();
        assert!(matches!(&error, Error::Died(how) if how == expected) && error.is_transient(), "{fault}: {error:?}");
        // The tasks that follow.
        for side in [100, 200, 300] {
            let image = image(images::jpeg(side, 50));
            let needed = decoders.memory_needed(&image).await.unwrap();
            let made = decoders.process(image, needed, ()).await.unwrap();
            assert_eq!((made.width, made.height), (u32::from(side), 50), "{fault}");
        }
        let log = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN") && line.contains(expected)).collect();
        assert_eq!(warnings.len(), 1, "{fault}: {log}");
        assert_eq!(fs::read_to_string(starts).unwrap().lines().count(), 2, "{fault}: one was ended, another serves on");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_decoder_has_only_its_task_socket_open() {
    let leak = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let (_home, program) = faulty("descriptors");
    let decoders = decoders(program);
    // Also the second one, whose process has decoded before.
    for _ in 0..2 {
        let error = outcome(&decoders, marked(images::jpeg(64, 64))).await.unwrap_err();
        assert!(error.to_string().contains(": 0 device, 1 device, 2 device, 3 socket."), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_unneeded_system_call_of_a_decoder_is_refused() {
    let (_home, program) = faulty("calls");
    let error = outcome(&decoders(program), marked(images::jpeg(64, 64))).await.unwrap_err().to_string();
    assert!(error.contains("reached: []; tgkill of itself: true"), "{error}");
    let tried = error.split(' ').find_map(|word| word.parse::<u32>().ok()).unwrap();
    assert!(tried > 990, "{error}");
}

#[tokio::test]
async fn an_image_has_a_limit_of_processor_time() {
    let (_home, program) = faulty("spin");
    let (limit, wall_clock_limit) = (Duration::from_secs(1), Duration::from_secs(60));
    let config =
        Config { program: Some(program), time_limit: limit, wall_clock_limit, processes: 1, ..Config::default() };
    let decoders = Decoders::new(&config);
    let error = outcome(&decoders, marked(images::jpeg(64, 64))).await.unwrap_err();
    assert!(matches!(error, Error::TooSlow(after) if after == limit) && !error.is_transient(), "{error:?}");
    assert_eq!(error.code().as_str(), "too_complex");
}

#[tokio::test]
async fn a_program_that_is_not_a_decoder_does_not_fail_the_image() {
    let ((_silent, silent), (_echo, echo)) = (script("sleep 60"), script("exec cat >&0"));
    let decoders_of = |program, wall_clock_limit| {
        Decoders::new(&Config { program: Some(program), wall_clock_limit, processes: 1, ..Config::default() })
    };
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(60));
    let programs =
        [(silent, short, "no answer"), ("/bin/true".into(), long, "exited before"), (echo, long, "did not exit")];
    for (program, wall_clock_limit, reason) in programs {
        let error = outcome(&decoders_of(program, wall_clock_limit), images::jpeg(64, 64)).await.unwrap_err();
        assert!(matches!(&error, Error::Died(how) if how.contains(reason)), "{reason}: {error:?}");
    }
    let error = outcome(&decoders_of("/nowhere/decoder".into(), long), images::jpeg(64, 64)).await.unwrap_err();
    assert!(matches!(error, Error::NotStarted(_)), "{error:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_canceled_task_ends_its_decoder() {
    let sign = format!("decoder-{}", uuid::Uuid::new_v4().simple());
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join(&sign);
    std::os::unix::fs::symlink(PROGRAM, &link).unwrap();
    let (_home, program) = script(&format!("DECODER_FAULT=spin exec {} \"$@\"", link.display()));
    let decoders = decoders(program);
    let work = outcome(&decoders, marked(images::jpeg(64, 64)));
    let mut most = 0;
    let watch = async {
        loop {
            most = most.max(processes_called(&sign));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let both = async { tokio::join!(work, watch) };
    assert!(tokio::time::timeout(Duration::from_secs(2), both).await.is_err());
    assert!(most >= 2, "one waits and its copy works: {most}");
    wait_until("no decoder keeps running", || processes_called(&sign) == 0).await;
}

/// Returns processes whose program has this name. A decoder's environment is unreadable.
fn processes_called(name: &str) -> usize {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    processes.filter(|line| line.windows(name.len()).any(|bytes| bytes == name.as_bytes())).count()
}

on_both_setups! {
    async fn an_image_that_kills_its_decoders_is_poison_and_harms_no_other(app: &TestApp) {
        let (_home, program) = faulty("abort");
        let worker = app.app.clone().isolated_by(program).worker(2).unwrap();
        let origin = Origin::start().await;
        origin.serve("/good.jpg", "image/jpeg", images::jpeg(80, 60));
        origin.serve("/poison.jpg", "image/jpeg", marked(images::jpeg(64, 64)));
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

on_both_setups! {
    async fn an_image_that_hijacks_its_decoders_is_poison_and_forges_no_other(app: &TestApp) {
        let (_home, program) = faulty("extra");
        let worker = app.app.clone().isolated_by(program).worker(1).unwrap();
        let origin = Origin::start().await;
        origin.serve("/bad.jpg", "image/jpeg", marked(images::jpeg(64, 64)));
        let bad = app.create(&[origin.url("/bad.jpg")]).await["id"].clone();
        let mut good = Vec::new();
        for width in [100_u16, 110, 120] {
            let path = format!("/{width}.jpg");
            origin.serve(&path, "image/jpeg", images::jpeg(width, 50));
            good.push((app.create(&[origin.url(&path)]).await["id"].clone(), width));
        }
        for _ in 0..3 {
            worker.drain().await.unwrap();
            app.let_time_pass().await;
        }
        assert_eq!(app.drain().await, 0);
        for (id, width) in good {
            let product = app.product(&id).await;
            let image = &product["images"][0];
            assert_eq!((&product["status"], &image["width"]), (&json!("ready"), &json!(width)), "{product}");
        }
        let image = app.product(&bad).await["images"][0].clone();
        assert_eq!((&image["error"]["code"], &image["attempts"]), (&json!("poison"), &json!(3)), "{image}");
    }

    async fn an_upload_that_kills_its_decoder_is_422_and_the_server_continues(app: &TestApp) {
        let (_home, program) = faulty("abort");
        let _isolated = app.app.clone().isolated_by(program);
        let id = app.create(&[]).await["id"].clone();
        let (bad, good) = (marked(images::jpeg(64, 64)), images::jpeg(64, 64));
        let answer = upload(app, &id, &[("good.jpg", &good), ("bad.jpg", &bad)]).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["errors"][0]["field"], "file[1]", "{problem}");
        assert!(answer.text().contains("out of memory or out of stack"), "{problem}");
        assert_eq!(upload(app, &id, &[("good.jpg", &good)]).await.status, 202);
        assert_eq!(app.product(&id).await["images"].as_array().unwrap().len(), 1);
    }

    async fn an_upload_is_503_when_no_decoder_starts(app: &TestApp) {
        let _isolated = app.app.clone().isolated_by("/nowhere/decoder".into());
        let id = app.create(&[]).await["id"].clone();
        let answer = upload(app, &id, &[("good.jpg", &images::jpeg(64, 64))]).await;
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_upload_is_checked_against_the_configured_limits() {
    for program in [None, Some(PathBuf::from(PROGRAM))] {
        let settings = [("PM_IMAGE_MAX_PIXELS", "10000")];
        app::run_with(Setup::Embedded, &settings, async |app| {
            let isolated = program.map(|program| app.app.clone().isolated_by(program));
            let id = app.create(&[]).await["id"].clone();
            let answer = upload(app, &id, &[("large.png", &images::huge_png(200, 100))]).await;
            assert_eq!(answer.status, 422, "{}", answer.text());
            assert!(answer.text().contains("200 × 100 pixels"), "{}", answer.text());
            assert_eq!(upload(app, &id, &[("small.jpg", &images::jpeg(90, 90))]).await.status, 202);
            drop(isolated);
        })
        .await;
    }
}

/// The kernel ends them, since no other process is left to do so.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn decoders_end_with_their_killed_worker() {
    let home = tempfile::tempdir().unwrap();
    let origin = Origin::start().await;
    origin.serve("/endless.jpg", "image/jpeg", marked(images::jpeg(64, 64)));
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
    panic!("not reached: {what}");
}

fn is_decoder(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|words| words.ends_with(b"\0decoder\0"))
}

/// Returns the descendants of process `id`.
fn descendants(id: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let children = ids.filter(|child| parent(*child) == Some(id)).collect::<Vec<_>>();
    children.into_iter().flat_map(|child| descendants(child).into_iter().chain([child])).collect()
}

fn parent(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}
