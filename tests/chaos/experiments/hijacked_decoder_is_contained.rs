//! P33: a compromised decoder affects only its own image. Decoders forge answers: repeated, late, before the task, and
//! for another task. No forged answer is accepted; each one costs its own image an attempt and is one line in the log;
//! all images end ready, with their own dimensions. Only a debug build can forge answers, so this experiment runs
//! cargo's latest build.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    images,
    measurements::counts,
    origin::Origin,
    processes::Process,
    soundness::{self, Counts},
    stage::Stage,
};

/// Ways in which decoders of a debug build forge an answer for an image with [`MARK`].
const FAULTS: [&str; 4] = ["extra", "late", "nonce", "early"];
const MARK: &[u8] = b"pm-fault";
/// Forging decoders of a worker: the one that tests the sandbox at the start, and one for images. So hardly an image
/// meets three of them, which would make it poison.
const FORGERS: &str = "2";
/// The log message.
const REASONS: [&str; 2] = ["sent data after its answer", "sent an answer to another task"];
/// Images in progress at a time.
const BATCH: usize = 8;
/// Time limit for each worker to meet a forging decoder.
const MEETING: Duration = Duration::from_secs(60);
/// Dimensions in a forged answer.
const FORGED_SIDE: u32 = 666;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let rounds = stage.size(1, 12);
    stage.run_debug_build();
    stage.configure("DECODER_FAULT_DECODERS", FORGERS);
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut made = Vec::new();
    let mut found = counts(json!({}));
    for round in 0..rounds {
        let mut workers = Vec::new();
        for fault in FAULTS {
            stage.configure("DECODER_FAULT", fault);
            workers.push(stage.worker(&format!("{fault}-{round}"), 2).await?);
        }
        let all_met = async {
            while !workers.iter().all(|worker| forged(worker) > 0) {
                for _ in 0..BATCH {
                    let place = made.len();
                    made.push(create(stage, &origin, &server.api(), place).await?);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(MEETING, all_met).await.context("a worker met no forging decoder")??;
        stage.settled(Duration::from_secs(120)).await?;
        for (fault, worker) in FAULTS.iter().zip(&mut workers) {
            anyhow::ensure!(worker.is_running(), "{fault} ended the worker itself: {}", worker.output());
            let before = found.get(*fault).and_then(Value::as_u64).unwrap_or_default();
            found.insert((*fault).to_owned(), json!(before + forged(worker) as u64));
            worker.kill().await;
        }
    }
    stage.unset("DECODER_FAULT");
    for (id, width, height) in &made {
        let product = server.api().product(*id).await?;
        let image = &product["images"][0];
        anyhow::ensure!(image["status"] == "ready", "an image is lost: {product}");
        let sides = (image["width"].as_u64(), image["height"].as_u64());
        let own = (Some(u64::from(*width)), Some(u64::from(*height)));
        anyhow::ensure!(sides == own, "a forged answer was accepted instead of {width} × {height}: {product}");
    }
    let lines: u64 = FAULTS.iter().filter_map(|fault| found.get(*fault)?.as_u64()).sum();
    let (forged_over, others) = attempts(stage).await?;
    anyhow::ensure!(lines == forged_over, "{lines} log lines about {forged_over} attempts with forged answers");
    // On a busy machine an attempt may also fail for another reason; it is retried.
    found.insert("other_attempts".to_owned(), json!(others));
    found.insert("images".to_owned(), json!(made.len()));
    found.extend(soundness::check(stage).await?);
    server.process.kill().await;
    Ok(found)
}

/// Creates a product with a unique image; returns its id and the image's dimensions.
async fn create(
    stage: &Stage,
    origin: &Origin,
    api: &crate::api::Api,
    place: usize,
) -> anyhow::Result<(i64, u16, u16)> {
    let number = u16::try_from(place)?;
    let (width, height) = (64 + number % 512, 32 + number / 512);
    anyhow::ensure!(u32::from(width) != FORGED_SIDE, "an image has the forged dimensions");
    let image = images::numbered_jpeg(u32::from(number), width, height);
    let path = format!("/{}-{place}.jpg", stage.name);
    origin.serve(&path, "image/jpeg", marked(&image));
    let id = api.create(&format!("image {place}"), &[origin.url(&path)]).await?["id"].as_i64();
    Ok((id.context("a number")?, width, height))
}

/// Counts attempts that failed because of a forged answer, and lists the errors of others.
async fn attempts(stage: &Stage) -> anyhow::Result<(u64, Vec<String>)> {
    let (mut forged_over, mut others) = (0, Vec::new());
    for row in stage.rows("SELECT outcome, error_message FROM job_attempts").await? {
        let (outcome, message): (String, Option<String>) = row.try_get_many_by_index()?;
        let message = message.unwrap_or_default();
        if REASONS.iter().any(|reason| message.contains(reason)) {
            forged_over += 1;
        } else {
            others.push(format!("{outcome}: {message}"));
        }
    }
    Ok((forged_over, others))
}

/// Counts log lines about forged answers.
fn forged(worker: &Process) -> usize {
    let log = worker.output();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_about_forging = |line: &Value| {
        line["message"].as_str().is_some_and(|message| message.starts_with("killed a decoder that"))
            && line["work"] != "TrySandbox"
    };
    lines.filter(is_about_forging).count()
}

/// Returns the same image with a comment that triggers the decoder's fault.
fn marked(jpeg: &[u8]) -> Vec<u8> {
    let length = u16::try_from(MARK.len() + 2).expect("the mark is short").to_be_bytes();
    [&jpeg[..2], &[0xff, 0xfe], &length, MARK, &jpeg[2..]].concat()
}
