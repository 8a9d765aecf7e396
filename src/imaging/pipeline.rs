//! The steps from a file to its renditions, in their order: headers, limits, decode, make smaller, colours, upright,
//! and then from the largest rendition to the smallest: make smaller, encode. Colours and orientation come after the first
//! reduction because they cost the less the fewer pixels there are.

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

/// A picture with all its renditions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Processed {
    /// The source's format, by content.
    pub format: SourceFormat,
    /// The source's pixels across, once upright.
    pub width: u32,
    /// The source's pixels down, once upright.
    pub height: u32,
    /// A preview of some 25 bytes, [ThumbHash](https://evanw.github.io/thumbhash/) in standard base64.
    pub thumbhash: String,
    /// The most frequent colour as `#rrggbb`.
    pub dominant_color: String,
    /// What the picture looks like in 64 bits. Two pictures are alike as far as their hashes are: at most 10 bits apart
    /// they show the same, saved anew, scaled or a little brighter; different pictures are some 32 bits apart. Pictures
    /// without any detail are all alike to it.
    pub perceptual_hash: u64,
    /// What was not as it should be, each at most once.
    pub warnings: Vec<Warning>,
    /// One a preset and format, in the order of the presets.
    pub renditions: Vec<Rendered>,
    /// Where the time went.
    pub steps: Steps,
}

/// One rendition: upright, in sRGB, eight bits a sample, without metadata, with no more bytes than the source unless
/// not even the smallest form has so few.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// Name of its preset.
    pub preset: String,
    /// What `bytes` are; the format that was asked for, except where only another was small enough.
    pub format: RenditionFormat,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The file; left out where the rest is written down.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

impl Rendered {
    /// The format's name: `jpeg`, `webp`, `png`, `avif`, `gif`.
    pub const fn format_name(&self) -> &'static str {
        self.format.as_str()
    }

    /// The ending of the file's name, without its dot.
    pub const fn extension(&self) -> &'static str {
        self.format.extension()
    }

    /// The value of `Content-Type`.
    pub const fn media_type(&self) -> &'static str {
        self.format.media_type()
    }
}

/// Wall time of the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// File to pixels.
    pub decode: Duration,
    /// All scaling, colours and orientation.
    pub resize: Duration,
    /// Pixels to files.
    pub encode: Duration,
    /// ThumbHash, dominant colour and perceptual hash.
    pub describe: Duration,
}

/// Makes the renditions of `presets` from `source`. The same bytes and presets give the same bytes on the same machine.
///
/// Blocks for as long as it takes (about 0.2 s for 10 megapixels); memory is bounded by `limits.max_memory`.
///
/// # Errors
/// As [`probe`](super::probe()); [`Error::Undecodable`] also for what makes a decoder panic; [`Error::TooComplex`] also
/// where the presets ask for more than fits the memory; [`Error::Internal`] if an encoder fails.
pub fn process(source: &[u8], presets: &[Preset], limits: &Limits) -> Result<Processed, Error> {
    catch_unwind(AssertUnwindSafe(|| run(source, presets, limits)))
        .unwrap_or_else(|_| Err(Error::damaged("its decoder gave up in disorder")))
}

/// Peak memory of [`process`] with the same arguments, in bytes, the source's own included. To be charged to a budget
/// before the picture is decoded. Reads the headers alone.
///
/// # Errors
/// As [`probe`](super::probe()), judged by these presets.
pub fn memory_needed(source: &[u8], presets: &[Preset], limits: &Limits) -> Result<u64, Error> {
    let header = header::read(source, limits)?;
    let (width, height) = upright(header.width, header.height, header.orientation);
    let tasks = tasks(width, height, presets);
    let largest = largest(&tasks, &header, contain(width, height, PREVIEW_EDGE, PREVIEW_EDGE));
    let needed = tasks_cost(source, &header, &tasks, largest);
    limits.check_cost(needed)?;
    Ok(needed)
}

/// A rendition that is to be made: the place of its preset, its format, its shape.
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
    let picture = &source[..header.end];
    let decoded = timed(&mut steps.decode, || decode(picture, &header, limits, largest))?;
    let pixels = timed(&mut steps.resize, || {
        let mut pixels = decoded.pixels;
        scaler.reduce(&mut pixels, largest.0, largest.1)?;
        pixels.drop_opaque_alpha();
        if !colours_are_right(&mut pixels, &header) {
            warnings.push(Warning::ProfileIgnored);
        }
        Ok(orient(pixels, header.orientation))
    })?;
    let stripped = if decoded.flaw.is_none() { stripped(picture, &header) } else { None };
    let mut rendering =
        Rendering { most: most_bytes(source, limits), header: &header, stripped, scaler, steps, pixels };
    let renditions = rendering.render(tasks, (width, height))?;
    let (thumbhash, dominant_color, perceptual_hash) = rendering.describe(preview)?;
    warnings.extend(decoded.flaw);
    warnings.extend(header.animated.then_some(Warning::AnimationDropped));
    let steps = rendering.steps;
    let format = header.format;
    Ok(Processed { format, width, height, thumbhash, dominant_color, perceptual_hash, warnings, renditions, steps })
}

/// The pixels of the whole picture, across and down as stored, from which everything can be made.
fn largest(tasks: &[Task<'_>], header: &Header, preview: Shape) -> (u32, u32) {
    // The preview is the smallest of all unless there are no other tasks, or only smaller ones.
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

/// What there is to make, the largest first, so that each can be made from the one before it.
fn tasks(width: u32, height: u32, presets: &[Preset]) -> Vec<Task<'_>> {
    let mut tasks: Vec<Task<'_>> = presets
        .iter()
        .flat_map(|preset| preset.formats.iter().map(move |format| (preset, *format)))
        .enumerate()
        .map(|(place, (preset, format))| Task { place, preset, format, shape: shape(width, height, preset, format) })
        .collect();
    // Those of one shape stand together, those that are cut or squeezed after the whole one of their scale.
    tasks.sort_by_key(|task| {
        let Shape { width, height, whole, view } = task.shape;
        (std::cmp::Reverse((whole.0, whole.1)), view, width, height, task.place)
    });
    tasks
}

/// Brings the pixels to sRGB; `false` if there is a profile that cannot be followed.
fn colours_are_right(pixels: &mut Pixels, header: &Header) -> bool {
    match &header.profile {
        // The pixels are no inks any more, so a profile for inks does not fit them.
        Some(profile) => !header.cmyk && to_srgb(pixels, profile, header.samples <= 2).is_ok(),
        None => !header.profile_broken,
    }
}

/// The work from the largest rendition down. `pixels` is the whole picture at the scale that was reached.
struct Rendering<'a> {
    /// Bytes that no rendition has more of.
    most: usize,
    header: &'a Header,
    /// The source without metadata, if that looks the same as the picture.
    stripped: Option<Vec<u8>>,
    scaler: Scaler,
    steps: Steps,
    pixels: Pixels,
}

impl Rendering<'_> {
    fn render(&mut self, tasks: Vec<Task<'_>>, full: (u32, u32)) -> Result<Vec<Rendered>, Error> {
        let mut done: Vec<(usize, Rendered)> = Vec::with_capacity(tasks.len());
        // What was encoded last for one shape: presets often ask for the same of a small picture.
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

    /// Makes the picture as small as `shape` allows; gives the piece if it does not show the whole of it as it is.
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
