//! Cost of decoding each image in its own process: the same images by threads of this process and by decoders of `pm`,
//! alternately, as many at a time as there are cores.
//!
//! `cargo bench --bench isolation [-- FOLDER]` uses the images of a folder, else a drawn photograph of 12 megapixels
//! and one of 0.1. Prints a JSON line for each set of images: milliseconds per image with threads and with processes
//! (medians of the rounds), and their ratio.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on says so by a panic")]

#[path = "images/mod.rs"]
mod images;

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use images::photograph;
use pm::{
    imaging::{Limits, default_presets},
    isolation::{Config, DecodeTask, Decoders},
};

const ROUNDS: usize = 7;

/// Milliseconds per image.
async fn measure(decoders: &Decoders, sources: &[Bytes], at_a_time: usize) -> f64 {
    let began = Instant::now();
    let work = sources.iter().map(|source| async {
        let image = DecodeTask { source: source.clone(), presets: default_presets(), limits: Limits::default() };
        let needed = decoders.memory_needed(&image).await.unwrap();
        decoders.process(image, needed, ()).await.unwrap().renditions.len()
    });
    let made: Vec<usize> = stream::iter(work).buffer_unordered(at_a_time).collect().await;
    assert_eq!(made.len(), sources.len());
    began.elapsed().as_secs_f64() * 1e3 / sources.len() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn compare(name: &str, sources: &[Bytes]) {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let time_limit = Duration::from_secs(60);
    let config = Config {
        program: Some(env!("CARGO_BIN_EXE_pm").into()),
        time_limit,
        wall_clock_limit: time_limit * 3,
        processes: cores + 1,
        ..Config::default()
    };
    let (threads, processes) = (Decoders::new(&Config::default()), Decoders::new(&config));
    let (mut by_threads, mut by_processes) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (one, other) = (measure(&threads, sources, cores).await, measure(&processes, sources, cores).await);
        // The first round starts the decoders and warms up.
        if round > 0 {
            by_threads.push(one);
            by_processes.push(other);
        }
    }
    let (threads_ms, processes_ms) = (median(by_threads), median(by_processes));
    let ratio = processes_ms / threads_ms;
    let line = serde_json::json!({
        "images": name, "count": sources.len(), "rounds": ROUNDS, "at_a_time": cores,
        "threads_ms": round_to(threads_ms, 100.0), "processes_ms": round_to(processes_ms, 100.0),
        "ratio": round_to(ratio, 1000.0),
    });
    println!("{line}");
}

fn round_to(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[tokio::main]
async fn main() {
    // Cargo adds its own flag.
    match std::env::args().skip(1).find(|word| !word.starts_with("--")) {
        Some(folder) => {
            let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let limits = Limits::default();
            let readable = |source: &Vec<u8>| pm::imaging::probe(source, &limits).is_ok();
            let sources = files.filter_map(|path| std::fs::read(path).ok()).filter(readable).map(Bytes::from);
            compare(&folder, &sources.collect::<Vec<_>>()).await;
        }
        None => {
            compare("12 megapixels", &vec![Bytes::from(photograph(4_000, 3_000)); 8]).await;
            compare("0.1 megapixels", &vec![Bytes::from(photograph(400, 300)); 200]).await;
        }
    }
}
