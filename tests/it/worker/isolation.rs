//! Pictures that bring their decoder down, and what the decoder's process can and cannot do.

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
    isolation::{Config, Decoders, Error, Picture, Walls},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    api::uploads::upload,
    support::{Origin, Setup, app, on_both_setups, pictures},
};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pm");

pub fn decoders(program: PathBuf) -> Decoders {
    let time_limit = Duration::from_secs(10);
    Decoders::new(&Config {
        program: Some(program),
        time_limit,
        patience: time_limit * 6,
        processes: 2,
        ..Config::default()
    })
}

fn picture(source: Vec<u8>) -> Picture {
    Picture { source: Bytes::from(source), presets: default_presets(), limits: Limits::default() }
}

/// What debug builds take as the sign to break down.
pub fn marked(mut source: Vec<u8>) -> Vec<u8> {
    source.extend_from_slice(b"pm-fault");
    source
}

/// A program that becomes a decoder with this fault.
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
    let picture = picture(source);
    let needed = decoders.memory_needed(&picture).await?;
    Ok(decoders.process(picture, needed, ()).await?.renditions.len())
}

#[tokio::test]
async fn a_process_makes_of_a_picture_what_a_thread_makes_of_it() {
    let (threads, processes) = (Decoders::new(&Config::default()), decoders(PROGRAM.into()));
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
        privileges: true,
        files: true,
        network: true,
        system_calls: true,
        landlock: walls.landlock,
    };
    assert_eq!(walls, all);
    assert_eq!(Decoders::new(&Config::default()).walls().await.unwrap(), Walls::default());
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

/// The lines that are logged while the guard lives.
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
async fn no_answer_is_believed_that_is_not_of_its_own_task() {
    for (fault, told) in [
        ("extra", "went on after its answer"),
        ("late", "went on after its answer"),
        ("nonce", "gave an answer that is not of its task"),
        ("early", "gave an answer that is not of its task"),
    ] {
        let (_home, program) = script(&format!(
            "echo started >>\"$0.starts\"\n[ $(wc -l <\"$0.starts\") = 1 ] && export DECODER_FAULT={fault}\nexec {PROGRAM} \"$@\""
        ));
        let starts = program.with_extension("starts");
        let decoders = decoders(program);
        let (lines, _guard) = logged();
        let error = outcome(&decoders, marked(pictures::jpeg(64, 64))).await.unwrap_err();
        assert!(matches!(&error, Error::Died(how) if how == told) && error.is_transient(), "{fault}: {error:?}");
        // The customers who come next.
        for side in [100, 200, 300] {
            let picture = picture(pictures::jpeg(side, 50));
            let needed = decoders.memory_needed(&picture).await.unwrap();
            let made = decoders.process(picture, needed, ()).await.unwrap();
            assert_eq!((made.width, made.height), (u32::from(side), 50), "{fault}");
        }
        let log = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN") && line.contains(told)).collect();
        assert_eq!(warnings.len(), 1, "{fault}: {log}");
        assert_eq!(fs::read_to_string(starts).unwrap().lines().count(), 2, "{fault}: one was ended, another serves on");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_decoder_has_nothing_open_but_the_socket_of_its_task() {
    let leak = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let (_home, program) = faulty("descriptors");
    let decoders = decoders(program);
    // Also the second one, whose process has worked before.
    for _ in 0..2 {
        let error = outcome(&decoders, marked(pictures::jpeg(64, 64))).await.unwrap_err();
        assert!(error.to_string().contains(": 0 device, 1 device, 2 device, 3 socket."), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_call_that_a_decoder_does_not_need_is_refused() {
    let (_home, program) = faulty("calls");
    let error = outcome(&decoders(program), marked(pictures::jpeg(64, 64))).await.unwrap_err().to_string();
    assert!(error.contains("reached: []; tgkill of itself: true"), "{error}");
    let tried = error.split(' ').find_map(|word| word.parse::<u32>().ok()).unwrap();
    assert!(tried > 990, "{error}");
}

#[tokio::test]
async fn a_picture_has_no_more_than_its_share_of_processor_time() {
    let (_home, program) = faulty("spin");
    let (limit, patience) = (Duration::from_secs(1), Duration::from_secs(60));
    let config = Config { program: Some(program), time_limit: limit, patience, processes: 1, ..Config::default() };
    let decoders = Decoders::new(&config);
    let error = outcome(&decoders, marked(pictures::jpeg(64, 64))).await.unwrap_err();
    assert!(matches!(error, Error::TooSlow(told) if told == limit) && !error.is_transient(), "{error:?}");
    assert_eq!(error.code().as_str(), "too_complex");
}

#[tokio::test]
async fn a_program_that_is_no_decoder_is_an_error_and_not_the_pictures_fault() {
    let ((_silent, silent), (_echo, echo)) = (script("sleep 60"), script("exec cat >&0"));
    let decoders_of = |program, patience| {
        Decoders::new(&Config { program: Some(program), patience, processes: 1, ..Config::default() })
    };
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(60));
    let programs = [(silent, short, "no answer"), ("/bin/true".into(), long, "ended before"), (echo, long, "no sense")];
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
    let sign = format!("decoder-{}", uuid::Uuid::new_v4().simple());
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join(&sign);
    std::os::unix::fs::symlink(PROGRAM, &link).unwrap();
    let (_home, program) = script(&format!("DECODER_FAULT=spin exec {} \"$@\"", link.display()));
    let decoders = decoders(program);
    let work = outcome(&decoders, marked(pictures::jpeg(64, 64)));
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
    wait_until("no decoder goes on", || processes_called(&sign) == 0).await;
}

/// Processes whose program bears this name. Nobody may read the environment of a decoder.
fn processes_called(name: &str) -> usize {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    processes.filter(|line| line.windows(name.len()).any(|bytes| bytes == name.as_bytes())).count()
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

on_both_setups! {
    async fn a_picture_that_takes_its_decoders_over_ends_as_poison_and_answers_for_no_other(app: &TestApp) {
        let (_home, program) = faulty("extra");
        let worker = app.app.clone().isolated_by(program).worker(1).unwrap();
        let origin = Origin::start().await;
        origin.serve("/bad.jpg", "image/jpeg", marked(pictures::jpeg(64, 64)));
        let bad = app.create(&[origin.url("/bad.jpg")]).await["id"].clone();
        let mut good = Vec::new();
        for width in [100_u16, 110, 120] {
            let path = format!("/{width}.jpg");
            origin.serve(&path, "image/jpeg", pictures::jpeg(width, 50));
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

    async fn an_upload_that_kills_its_decoder_is_422_and_the_server_goes_on(app: &TestApp) {
        let (_home, program) = faulty("abort");
        let _isolated = app.app.clone().isolated_by(program);
        let id = app.create(&[]).await["id"].clone();
        let (bad, good) = (marked(pictures::jpeg(64, 64)), pictures::jpeg(64, 64));
        let answer = upload(app, &id, &[("good.jpg", &good), ("bad.jpg", &bad)]).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["errors"][0]["field"], "file[1]", "{problem}");
        assert!(answer.text().contains("out of memory or out of stack"), "{problem}");
        assert_eq!(upload(app, &id, &[("good.jpg", &good)]).await.status, 202);
        assert_eq!(app.product(&id).await["images"].as_array().unwrap().len(), 1);
    }

    async fn an_upload_is_503_where_no_decoder_can_be_started(app: &TestApp) {
        let _isolated = app.app.clone().isolated_by("/nowhere/decoder".into());
        let id = app.create(&[]).await["id"].clone();
        let answer = upload(app, &id, &[("good.jpg", &pictures::jpeg(64, 64))]).await;
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_upload_is_held_to_the_limits_of_the_settings() {
    for program in [None, Some(PathBuf::from(PROGRAM))] {
        let settings = [("PM_IMAGE_MAX_PIXELS", "10000")];
        app::run_with(Setup::Embedded, &settings, async |app| {
            let isolated = program.map(|program| app.app.clone().isolated_by(program));
            let id = app.create(&[]).await["id"].clone();
            let answer = upload(app, &id, &[("large.png", &pictures::huge_png(200, 100))]).await;
            assert_eq!(answer.status, 422, "{}", answer.text());
            assert!(answer.text().contains("200 × 100 pixels"), "{}", answer.text());
            assert_eq!(upload(app, &id, &[("small.jpg", &pictures::jpeg(90, 90))]).await.status, 202);
            drop(isolated);
        })
        .await;
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
