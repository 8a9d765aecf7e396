//! P13: a poison image affects no other image. One image among good ones makes its decoder abort, overflow its stack,
//! exhaust memory or loop forever; it fails with the matching code, and the good ones become ready. Only a debug build
//! can be made to fail like this, so this experiment runs cargo's latest build.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    images,
    measurements::counts,
    origin::Origin,
    soundness::{self, Counts},
    stage::Stage,
};

/// Faults of a debug build's decoder for an image with [`MARK`], and the image's outcome.
const FAULTS: [(&str, &str); 4] =
    [("abort", "poison"), ("overflow", "poison"), ("memory", "poison"), ("spin", "too_complex")];
const MARK: &[u8] = b"pm-fault";
/// Claims after which an image that kills its decoders fails.
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
            let image = images::numbered_jpeg(drawn, 96, 64);
            // The bad image is in the middle of the good ones.
            let bad = place == good / 2;
            let path = format!("/{fault}-{place}.jpg");
            origin.serve(&path, "image/jpeg", if bad { marked(&image) } else { image });
            let id = api.create(&format!("{fault} {place}"), &[origin.url(&path)]).await?["id"].as_i64();
            let id = id.context("a number")?;
            if bad { poison = id } else { ids.push(id) }
        }
        stage.settled(Duration::from_secs(90) + Duration::from_millis(500) * u32::try_from(good)?).await?;
        anyhow::ensure!(worker.is_running(), "{fault} ended the worker itself: {}", worker.output());
        for id in ids {
            let product = api.product(id).await?;
            anyhow::ensure!(product["status"] == "ready", "a good image beside {fault}: {product}");
        }
        let image = api.product(poison).await?["images"][0].clone();
        anyhow::ensure!(image["error"]["code"] == *code, "the image that makes its decoder {fault}: {image}");
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

/// Returns the same image with a comment that triggers the decoder's fault.
fn marked(jpeg: &[u8]) -> Vec<u8> {
    let length = u16::try_from(MARK.len() + 2).expect("the mark is short").to_be_bytes();
    [&jpeg[..2], &[0xff, 0xfe], &length, MARK, &jpeg[2..]].concat()
}
