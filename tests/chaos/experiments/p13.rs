//! P13: poison is contained. One picture among good ones makes its decoder abort, overflow its stack, take all memory or
//! never end; it is given up with a code that says so, and the good ones are ready as if it were not there. Only a build with
//! debug assertions can be made to fail so: this experiment runs the one that `cargo` has just built.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    figures::counts,
    origin::Origin,
    pictures,
    soundness::{self, Counts},
    stage::Stage,
};

/// What makes the decoder of a debug build misbehave over the picture that bears [`MARK`], and how that picture ends.
const FAULTS: [(&str, &str); 4] =
    [("abort", "poison"), ("overflow", "poison"), ("memory", "poison"), ("spin", "too_complex")];
const MARK: &[u8] = b"pm-fault";
/// Claims after which a picture that its decoder dies over is given up.
const CLAIMS: i64 = 3;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let good = stage.size(8, 200);
    stage.run_debug_build();
    stage.configure("PM_IMAGE_TIMEOUT", "2s");
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let api = server.api();
    let mut ended = counts(json!({"good_of_each": good}));
    for (number, (fault, code)) in FAULTS.iter().enumerate() {
        stage.configure("DECODER_FAULT", *fault);
        let mut worker = stage.worker("worker", 2).await?;
        let mut ids = Vec::new();
        let mut poison = 0;
        for place in 0..=good {
            let drawn = u32::try_from(number * 1_000 + place)?;
            let picture = pictures::numbered_jpeg(drawn, 96, 64);
            // The bad one stands in the midst of the good ones.
            let bad = place == good / 2;
            let path = format!("/{fault}-{place}.jpg");
            origin.serve(&path, "image/jpeg", if bad { marked(&picture) } else { picture });
            let id = api.create(&format!("{fault} {place}"), &[origin.url(&path)]).await?["id"].as_i64();
            let id = id.context("a number")?;
            if bad { poison = id } else { ids.push(id) }
        }
        stage.settled(Duration::from_secs(90) + Duration::from_millis(500) * u32::try_from(good)?).await?;
        anyhow::ensure!(worker.is_running(), "{fault} ended the worker itself: {}", worker.output());
        for id in ids {
            let product = api.product(id).await?;
            anyhow::ensure!(product["status"] == "ready", "a good picture beside {fault}: {product}");
        }
        let image = api.product(poison).await?["images"][0].clone();
        anyhow::ensure!(image["error"]["code"] == *code, "the picture that makes its decoder {fault}: {image}");
        if *code == "poison" {
            anyhow::ensure!(image["attempts"] == CLAIMS, "{fault} was claimed {} times", image["attempts"]);
        }
        ended.insert((*fault).to_owned(), image["error"]["code"].clone());
        worker.kill().await;
    }
    ended.extend(soundness::check(stage).await?);
    server.process.kill().await;
    Ok(ended)
}

/// The same picture with a comment that the decoder's fault listens to.
fn marked(jpeg: &[u8]) -> Vec<u8> {
    let length = u16::try_from(MARK.len() + 2).expect("the mark is short").to_be_bytes();
    [&jpeg[..2], &[0xff, 0xfe], &length, MARK, &jpeg[2..]].concat()
}
