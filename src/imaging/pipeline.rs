//! The steps from a file to its renditions, in their order: headers, limits, decode, make smaller, colours, upright,
//! and then from the largest rendition to the smallest: make smaller, encode. Colours and orientation come after the first
//! reduction because they cost the less the fewer pixels there are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::color::to_srgb;
use super::decode::decode;
use super::describe::{PREVIEW_EDGE, dominant_color, thumbhash};
use super::encode::Tuning;
use super::error::Error;
use super::geometry::{Shape, contain, shape};
use super::header::{self, Header};
use super::limits::Limits;
use super::orient::{orient, upright};
use super::pixels::Pixels;
use super::preset::{OutputFormat, Preset};
use super::probe::cost;
use super::resize::Scaler;
use super::smaller::{Bound, RenditionFormat, encode_within};
use super::sniff::SourceFormat;
use super::strip::stripped;
use super::warning::Warning;

/// A picture with all its renditions.
#[derive(Clone, Debug)]
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
    /// What was not as it should be, each at most once.
    pub warnings: Vec<Warning>,
    /// One a preset and format, in the order of the presets.
    pub renditions: Vec<Rendered>,
    /// Where the time went.
    pub steps: Steps,
}

/// One rendition: upright, in sRGB, eight bits a sample, without metadata, with no more bytes than the source unless
/// not even the smallest form has so few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Name of its preset.
    pub preset: String,
    /// What `bytes` are; the format that was asked for, except where only another was small enough.
    pub format: RenditionFormat,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Rendered {
    /// The format's name: `jpeg`, `webp`, `png`, `gif`.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// File to pixels.
    pub decode: Duration,
    /// All scaling, colours and orientation.
    pub resize: Duration,
    /// Pixels to files.
    pub encode: Duration,
    /// ThumbHash and dominant colour.
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
    // The preview is the smallest of all unless there are no other tasks, or only smaller ones.
    let largest = tasks.iter().map(|task| task.shape.whole).chain([preview.whole]).max().unwrap_or(preview.whole);
    let largest = upright(largest.0, largest.1, header.orientation);
    limits.check_cost(cost(source.len(), &header, largest))?;

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
    let mut rendering = Rendering { source, header: &header, stripped, scaler, steps, pixels };
    let renditions = rendering.render(tasks, (width, height))?;
    let (thumbhash, dominant_color) = rendering.describe(preview)?;
    warnings.extend(decoded.flaw);
    warnings.extend(header.animated.then_some(Warning::AnimationDropped));
    let steps = rendering.steps;
    Ok(Processed { format: header.format, width, height, thumbhash, dominant_color, warnings, renditions, steps })
}

/// What there is to make, the largest first, so that each can be made from the one before it.
fn tasks(width: u32, height: u32, presets: &[Preset]) -> Vec<Task<'_>> {
    let mut tasks: Vec<Task<'_>> = presets
        .iter()
        .flat_map(|preset| preset.formats.iter().map(move |format| (preset, *format)))
        .enumerate()
        .map(|(place, (preset, format))| Task { place, preset, format, shape: shape(width, height, preset, format) })
        .collect();
    // Those of one shape stand together, those that are cut after the whole one of their scale.
    tasks.sort_by_key(|task| {
        let Shape { width, height, whole, cut } = task.shape;
        (std::cmp::Reverse((whole.0, whole.1)), cut, width, height, task.place)
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
    source: &'a [u8],
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
        let mut cut: Option<(Shape, Pixels)> = None;
        let mut last_shape = None;
        for task in tasks {
            let shape = task.shape;
            if last_shape != Some(shape) {
                known.clear();
                last_shape = Some(shape);
                cut = self.reach(shape)?;
            }
            let pixels = cut.as_ref().map_or(&self.pixels, |(_, pixels)| pixels);
            let tuning = Tuning { quality: task.preset.quality, effort: task.preset.effort };
            let same = known.iter().find(|known| (known.0, known.1) == (task.format, tuning)).map(|known| known.2);
            let (format, bytes) = match same {
                Some(index) => (done[index].1.format, done[index].1.bytes.clone()),
                None => {
                    let own_pixels = !shape.cut && shape.whole == full;
                    let stripped = self.stripped.as_deref().filter(|_| own_pixels);
                    let bound = Bound { bytes: self.source.len(), format: self.header.format, stripped };
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

    /// Makes the picture as small as `shape` allows, and gives the cut piece if it is a piece.
    fn reach(&mut self, shape: Shape) -> Result<Option<(Shape, Pixels)>, Error> {
        timed(&mut self.steps.resize, || {
            if shape.cut {
                return Ok(Some((shape, self.scaler.cut(&self.pixels, shape)?)));
            }
            self.scaler.reduce(&mut self.pixels, shape.width, shape.height)?;
            Ok(None)
        })
    }

    fn describe(&mut self, preview: Shape) -> Result<(String, String), Error> {
        timed(&mut self.steps.describe, || {
            self.scaler.reduce(&mut self.pixels, preview.width, preview.height)?;
            Ok((thumbhash(&self.pixels), dominant_color(&self.pixels)))
        })
    }
}

fn timed<T>(spent: &mut Duration, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let start = Instant::now();
    let outcome = step();
    *spent += start.elapsed();
    outcome
}
