//! Measures the imaging pipeline on a directory of images, and prints one line of JSON:
//! `cargo run --release --example imaging -- FOLDER [--works A|B] [--threads N] [--repeat R] [--out FOLDER]`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use pm::imaging::{Effort, Fit, Limits, OutputFormat, Preset, Processed, Size, default_presets, process};
use serde_json::json;

/// Runs every image of a directory through the imaging pipeline and prints one line of JSON.
#[derive(Parser)]
struct Arguments {
    /// Directory of images; files that are not images are named on stderr and skipped.
    folder: PathBuf,
    /// Renditions of each image.
    #[arg(long, value_enum, ignore_case = true, default_value = "A")]
    works: Works,
    /// Images processed at the same time; the number of cores by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Number of passes over the directory.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Directory for the renditions; they are not written by default.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Works {
    /// The default presets: JPEG 2048, WebP 1024, WebP 512, JPEG 160.
    #[value(name = "A")]
    A,
    /// One JPEG of 512 px.
    #[value(name = "B")]
    B,
}

impl Works {
    fn presets(self) -> Vec<Preset> {
        match self {
            Self::A => default_presets(),
            Self::B => vec![Preset {
                name: "small".to_owned(),
                size: Size::LongestEdge(512),
                fit: Fit::Contain,
                formats: vec![OutputFormat::Jpeg],
                quality: 80,
                effort: Effort::Balanced,
            }],
        }
    }
}

struct Image {
    name: String,
    bytes: Vec<u8>,
}

/// Sums over all images that were processed.
#[derive(Default)]
struct Sums {
    pixels: u64,
    steps: BTreeMap<&'static str, Duration>,
    bytes: BTreeMap<String, u64>,
}

impl Sums {
    fn add(&mut self, processed: &Processed, first_time: bool) {
        self.pixels += u64::from(processed.width) * u64::from(processed.height);
        let steps = processed.steps;
        let named = [
            ("decode", steps.decode),
            ("resize", steps.resize),
            ("encode", steps.encode),
            ("describe", steps.describe),
        ];
        for (name, spent) in named {
            *self.steps.entry(name).or_default() += spent;
        }
        for rendered in processed.renditions.iter().filter(|_| first_time) {
            *self.bytes.entry(rendered.preset.clone()).or_default() += rendered.bytes.len() as u64;
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let presets = arguments.works.presets();
    let images = read_images(&arguments.folder)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(cores).max(1);
    let runs = images.len() * arguments.repeat.max(1);

    let (next, sums) = (AtomicUsize::new(0), Mutex::new(Sums::default()));
    let (began, cpu_before) = (Instant::now(), cpu_ms());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Relaxed);
                    if run >= runs {
                        break;
                    }
                    let image = &images[run % images.len()];
                    match process(&image.bytes, &presets, &Limits::default()) {
                        Ok(processed) => {
                            let first_time = run < images.len();
                            sums.lock().expect("no thread panics with it").add(&processed, first_time);
                            if let Some(folder) = arguments.out.as_deref().filter(|_| first_time) {
                                write(folder, &image.name, &processed);
                            }
                        }
                        Err(error) => eprintln!("{}: {error}", image.name),
                    }
                }
            });
        }
    });
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_ms() - cpu_before);

    let sums = sums.into_inner().expect("no thread panicked with it");
    let per_image = |milliseconds: f64| round(milliseconds / runs as f64);
    let steps: BTreeMap<_, _> =
        sums.steps.iter().map(|(name, spent)| (name, per_image(spent.as_secs_f64() * 1e3))).collect();
    let line = json!({
        "works": if matches!(arguments.works, Works::A) { "A" } else { "B" },
        "backend": pm::imaging::JPEG_BACKEND,
        "threads": threads,
        "images": runs,
        "images_per_s": round(runs as f64 / seconds),
        "mpx_per_s": round(sums.pixels as f64 / 1e6 / seconds),
        "cpu_ms_per_image": per_image(cpu),
        "step_ms": steps,
        "peak_rss_mb": round(peak_resident_kib() / 1024.0),
        "bytes_by_rendition": sums.bytes,
    });
    println!("{line}");
    Ok(())
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// Returns all files of the directory that the pipeline recognizes as images, sorted by name.
fn read_images(folder: &Path) -> Result<Vec<Image>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let mut images = Vec::new();
    for path in paths.into_iter().filter(|path| path.is_file()) {
        let bytes = fs::read(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match pm::imaging::probe(&bytes, &Limits::default()) {
            Ok(_) => images.push(Image { name, bytes }),
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    if images.is_empty() { Err("there is no image in the folder".into()) } else { Ok(images) }
}

fn write(folder: &Path, name: &str, processed: &Processed) {
    for rendered in &processed.renditions {
        let path = folder.join(format!("{name}.{}.{}", rendered.preset, rendered.extension()));
        if let Err(error) = fs::write(&path, &rendered.bytes) {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// Returns the CPU time of all threads so far, in milliseconds; 0 without `/proc`.
fn cpu_ms() -> f64 {
    // The fields after the name, which may contain anything: the 12th and 13th are ticks of 10 ms in user and kernel
    // mode.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// Returns the peak resident memory in KiB; 0 without `/proc`.
fn peak_resident_kib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0)
}
