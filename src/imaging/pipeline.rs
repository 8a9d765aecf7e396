//! Runs the steps from a file to its renditions: headers, limits, decode, downscale, colors, orientation; then from the
//! largest rendition to the smallest: downscale, encode.
//!
//! Colors and orientation follow the first downscale, because they cost less on fewer pixels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::color::to_srgb;
use super::decode::decode;
use super::describe::{PREVIEW_EDGE, dominant_color, thumbhash};
use super::encode::encoder_bytes;
use super::error::Error;
use super::geometry::{Shape, View, contain, shape};
use super::header::{self, Header};
use super::limits::Limits;
use super::orient::{orient, upright};
use super::phash::perceptual_hash;
use super::pixels::Pixels;
use super::preset::{OutputFormat, Preset};
use super::probe::cost;
use super::resize::Scaler;
use super::smaller::{Bound, RenditionFormat, encode_within};
use super::sniff::SourceFormat;
use super::strip::stripped;
use super::tuning::Tuning;
use super::warning::Warning;

/// Result of processing: facts about the image and its renditions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Processed {
    /// Source format, detected by content.
    pub format: SourceFormat,
    /// Upright width of the source, in pixels.
    pub width: u32,
    /// Upright height of the source, in pixels.
    pub height: u32,
    /// Preview of about 25 bytes: a [ThumbHash](https://evanw.github.io/thumbhash/) in standard Base64.
    pub thumbhash: String,
    /// Dominant color as `#rrggbb`.
    pub dominant_color: String,
    /// Perceptual hash of 64 bits. Hashes of the same image saved again, scaled or slightly brightened differ in at
    /// most 10 bits; hashes of different images differ in about 32. Images without detail all have similar hashes.
    pub perceptual_hash: u64,
    /// Warnings, each at most once.
    pub warnings: Vec<Warning>,
    /// One rendition per preset and format, in the order of the presets.
    pub renditions: Vec<Rendered>,
    /// Time per step.
    pub steps: Steps,
}

/// A rendition: upright, sRGB, eight bits per sample, without metadata; at most as large as the source in bytes, unless
/// no encoding is that small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// Name of the preset.
    pub preset: String,
    /// Format of `bytes`: the requested one, unless only another was small enough.
    pub format: RenditionFormat,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The file; not serialized.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

impl Rendered {
    /// Returns the format's name: `jpeg`, `webp`, `png`, `avif`, `gif`.
    pub const fn format_name(&self) -> &'static str {
        self.format.as_str()
    }

    /// Returns the file extension without its dot.
    pub const fn extension(&self) -> &'static str {
        self.format.extension()
    }

    /// Returns the media type for `Content-Type`.
    pub const fn media_type(&self) -> &'static str {
        self.format.media_type()
    }
}

/// Wall-clock time of the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// Decoding.
    pub decode: Duration,
    /// Scaling, color conversion and orientation.
    pub resize: Duration,
    /// Encoding.
    pub encode: Duration,
    /// ThumbHash, dominant color and perceptual hash.
    pub describe: Duration,
}

/// Renders `presets` from `source`; deterministic on the same machine.
///
/// Blocks until done (about 0.2 s for 10 megapixels); memory is limited by `limits.max_memory`.
///
/// # Errors
/// As [`probe`](super::probe()); [`Error::Undecodable`] also if a decoder panics; [`Error::TooComplex`] also if the
/// presets need too much memory; [`Error::Internal`] if an encoder fails.
pub fn process(source: &[u8], presets: &[Preset], limits: &Limits) -> Result<Processed, Error> {
    catch_unwind(AssertUnwindSafe(|| run(source, presets, limits)))
        .unwrap_or_else(|_| Err(Error::damaged("its decoder panicked")))
}

/// Returns the peak memory of [`process`] with the same arguments in bytes, including the source. Reserve it before
/// processing. Reads only the headers.
///
/// # Errors
/// As [`probe`](super::probe()), checked for these presets.
pub fn memory_needed(source: &[u8], presets: &[Preset], limits: &Limits) -> Result<u64, Error> {
    let header = header::read(source, limits)?;
    let (width, height) = upright(header.width, header.height, header.orientation);
    let tasks = tasks(width, height, presets);
    let largest = largest(&tasks, &header, contain(width, height, PREVIEW_EDGE, PREVIEW_EDGE));
    let needed = tasks_cost(source, &header, &tasks, largest);
    limits.check_cost(needed)?;
    Ok(needed)
}

/// A rendition to make: preset, format and shape.
struct Task<'a> {
    place: usize,
    preset: &'a Preset,
    format: OutputFormat,
    shape: Shape,
}

fn run(source: &[u8], presets: &[Preset], limits: &Limits) -> Result<Processed, Error> {
    let header = header::read(source, limits)?;
    let (width, height) = upright(header.width, header.height, header.orientation);
    let preview = contain(width, height, PREVIEW_EDGE, PREVIEW_EDGE);
    let tasks = tasks(width, height, presets);
    let largest = largest(&tasks, &header, preview);
    limits.check_cost(tasks_cost(source, &header, &tasks, largest))?;

    let mut steps = Steps::default();
    let mut scaler = Scaler::new();
    let mut warnings = Vec::new();
    let image = &source[..header.end];
    let decoded = timed(&mut steps.decode, || decode(image, &header, limits, largest))?;
    let pixels = timed(&mut steps.resize, || {
        let mut pixels = decoded.pixels;
        scaler.reduce(&mut pixels, largest.0, largest.1)?;
        pixels.drop_opaque_alpha();
        if !colors_are_right(&mut pixels, &header) {
            warnings.push(Warning::ProfileIgnored);
        }
        Ok(orient(pixels, header.orientation))
    })?;
    let stripped = if decoded.warning.is_none() { stripped(image, &header) } else { None };
    let mut rendering =
        Rendering { most: most_bytes(source, limits), header: &header, stripped, scaler, steps, pixels };
    let renditions = rendering.render(tasks, (width, height))?;
    let (thumbhash, dominant_color, perceptual_hash) = rendering.describe(preview)?;
    warnings.extend(decoded.warning);
    warnings.extend(header.animated.then_some(Warning::AnimationDropped));
    let steps = rendering.steps;
    let format = header.format;
    Ok(Processed { format, width, height, thumbhash, dominant_color, perceptual_hash, warnings, renditions, steps })
}

/// Returns the stored width and height of the whole image from which every task can be made.
fn largest(tasks: &[Task<'_>], header: &Header, preview: Shape) -> (u32, u32) {
    // The preview is the smallest, unless there are only smaller tasks or none.
    let largest = tasks.iter().map(|task| task.shape.whole).chain([preview.whole]).max().unwrap_or(preview.whole);
    upright(largest.0, largest.1, header.orientation)
}

fn tasks_cost(source: &[u8], header: &Header, tasks: &[Task<'_>], largest: (u32, u32)) -> u64 {
    let channels = u64::from(header.channels);
    let encoding = tasks.iter().map(|task| {
        let piece = if task.shape.view == View::Whole { 0 } else { channels };
        u64::from(task.shape.width) * u64::from(task.shape.height) * (encoder_bytes(task.format) + piece)
    });
    cost(source.len(), header, largest, encoding.max().unwrap_or_default())
}

/// Returns the tasks, largest first, so that each can be made from the previous one.
fn tasks(width: u32, height: u32, presets: &[Preset]) -> Vec<Task<'_>> {
    let mut tasks: Vec<Task<'_>> = presets
        .iter()
        .flat_map(|preset| preset.formats.iter().map(move |format| (preset, *format)))
        .enumerate()
        .map(|(place, (preset, format))| Task { place, preset, format, shape: shape(width, height, preset, format) })
        .collect();
    // Tasks of one shape are adjacent; cropped and distorted ones follow the whole image of their scale.
    tasks.sort_by_key(|task| {
        let Shape { width, height, whole, view } = task.shape;
        (std::cmp::Reverse((whole.0, whole.1)), view, width, height, task.place)
    });
    tasks
}

/// Converts the pixels to sRGB; returns `false` if the profile cannot be applied.
fn colors_are_right(pixels: &mut Pixels, header: &Header) -> bool {
    match &header.profile {
        // CMYK is already converted, so its profile no longer fits.
        Some(profile) => !header.cmyk && to_srgb(pixels, profile, header.samples <= 2).is_ok(),
        None => !header.profile_broken,
    }
}

/// Makes renditions, largest first. `pixels` is the whole image at the current scale.
struct Rendering<'a> {
    /// Maximum bytes of a rendition.
    most: usize,
    header: &'a Header,
    /// The source without metadata, if it looks like the image.
    stripped: Option<Vec<u8>>,
    scaler: Scaler,
    steps: Steps,
    pixels: Pixels,
}

impl Rendering<'_> {
    fn render(&mut self, tasks: Vec<Task<'_>>, full: (u32, u32)) -> Result<Vec<Rendered>, Error> {
        let mut done: Vec<(usize, Rendered)> = Vec::with_capacity(tasks.len());
        // Results for the current shape: presets often request the same of a small image.
        let mut known: Vec<(OutputFormat, Tuning, usize)> = Vec::new();
        let mut piece: Option<Pixels> = None;
        let mut last_shape = None;
        for task in tasks {
            let shape = task.shape;
            if last_shape != Some(shape) {
                known.clear();
                last_shape = Some(shape);
                piece = self.reach(shape)?;
            }
            let pixels = piece.as_ref().unwrap_or(&self.pixels);
            let tuning = Tuning { quality: task.preset.quality, effort: task.preset.effort };
            let same = known.iter().find(|known| (known.0, known.1) == (task.format, tuning)).map(|known| known.2);
            let (format, bytes) = match same {
                Some(index) => (done[index].1.format, done[index].1.bytes.clone()),
                None => {
                    let own_pixels = shape.view == View::Whole && shape.whole == full;
                    let stripped = self.stripped.as_deref().filter(|_| own_pixels);
                    let bound = Bound { bytes: self.most, format: self.header.format, stripped };
                    timed(&mut self.steps.encode, || encode_within(pixels, task.format, tuning, &bound))?
                }
            };
            known.push((task.format, tuning, done.len()));
            let preset = task.preset.name.clone();
            done.push((task.place, Rendered { preset, format, width: shape.width, height: shape.height, bytes }));
        }
        done.sort_by_key(|(place, _)| *place);
        Ok(done.into_iter().map(|(_, rendered)| rendered).collect())
    }

    /// Downscales the image as far as `shape` allows; returns the crop if the shape does not show the whole image.
    fn reach(&mut self, shape: Shape) -> Result<Option<Pixels>, Error> {
        timed(&mut self.steps.resize, || {
            if shape.view != View::Whole {
                return Ok(Some(self.scaler.view(&self.pixels, shape)?));
            }
            self.scaler.reduce(&mut self.pixels, shape.width, shape.height)?;
            Ok(None)
        })
    }

    fn describe(&mut self, preview: Shape) -> Result<(String, String, u64), Error> {
        timed(&mut self.steps.describe, || {
            self.scaler.reduce(&mut self.pixels, preview.width, preview.height)?;
            Ok((thumbhash(&self.pixels), dominant_color(&self.pixels), perceptual_hash(&self.pixels)))
        })
    }
}

fn most_bytes(source: &[u8], limits: &Limits) -> usize {
    limits.max_rendition.map_or(source.len(), |most| usize::try_from(most).unwrap_or(usize::MAX))
}

fn timed<T>(spent: &mut Duration, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let start = Instant::now();
    let outcome = step();
    *spent += start.elapsed();
    outcome
}
