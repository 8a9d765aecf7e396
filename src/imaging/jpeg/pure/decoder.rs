//! Decodes JPEG without C code, directly at a reduced size if less is needed.

use fearless_simd::{Level, Simd};

use super::baseline;
use super::canvas::Canvas;
use super::entropy::Pass;
use super::frame::{Frame, Scan};
use super::planes::Plane;
use super::progressive::{self, Store};
use crate::imaging::decoded::Decoded;
use crate::imaging::error::Error;
use crate::imaging::header::Header;
use crate::imaging::jpeg::scale::block_side;
use crate::imaging::limits::Limits;
use crate::imaging::pixels::Pixels;
use crate::imaging::warning::Warning;

/// A frame is shown if at least one of this many blocks exists.
const MIN_SHARE: u64 = 32;

/// Decodes `source`; grays and inks become RGB. The result is reduced if only `largest` pixels across and down are
/// needed.
///
/// # Errors
/// [`Error::Undecodable`] if the file is inconsistent, or if almost no data exists.
pub(in crate::imaging) fn decode(
    source: &[u8],
    header: &Header,
    limits: &Limits,
    largest: (u32, u32),
) -> Result<Decoded, Error> {
    decode_to(source, header, limits, block_side((header.width, header.height), largest))
}

/// Runs [`decode`] with `block` samples per side of a block: 8, 4, 2 or 1.
pub(super) fn decode_to(source: &[u8], header: &Header, limits: &Limits, block: u32) -> Result<Decoded, Error> {
    let frame = Frame::read(source, block)?;
    limits.check_scans(frame.scans.len() as u32, header.width, header.height)?;
    let mut passes: Vec<Pass<'_>> = frame.scans.iter().filter(|scan| scan.needed).map(Pass::new).collect();
    let pixels = fastest(&frame, &mut passes);
    if share_of_data(&frame, &passes) < 1.0 / MIN_SHARE as f64 {
        return Err(Error::damaged("almost none of its pixels exist"));
    }
    let invalid_code = frame.damaged || passes.iter().any(|pass| pass.damaged || pass.bits.invalid_code);
    // Skipped scans are not checked; if the file has no end marker, the last one is probably truncated.
    let cut_unseen = frame.scans.last().is_some_and(|scan| !scan.needed);
    let warning = match header.truncated {
        true => (invalid_code || header.gaps || cut_unseen).then_some(Warning::Truncated),
        false => (invalid_code || header.gaps).then_some(Warning::Damaged),
    };
    Ok(Decoded { pixels, warning })
}

/// Decodes with the widest SIMD of the processor; more variants would add more code than speed.
#[cfg(target_arch = "x86_64")]
fn fastest(frame: &Frame<'_>, passes: &mut [Pass<'_>]) -> Pixels {
    let level = Level::new();
    match level.as_avx2() {
        Some(wide) => read(wide, frame, passes),
        None => read(level.as_sse2().expect("every processor of this kind has it"), frame, passes),
    }
}

/// Decodes with the processor's SIMD.
#[cfg(not(target_arch = "x86_64"))]
fn fastest(frame: &Frame<'_>, passes: &mut [Pass<'_>]) -> Pixels {
    fearless_simd::dispatch!(Level::new(), simd => read(simd, frame, passes))
}

/// Decodes the rows of units one by one.
#[inline(always)]
fn read<S: Simd>(simd: S, frame: &Frame<'_>, passes: &mut [Pass<'_>]) -> Pixels {
    let mut planes = Plane::all_of(frame);
    let mut canvas = Canvas::new(frame, &planes);
    let mut stores: Vec<Store> = if frame.progressive {
        frame.components.iter().map(|component| Store::new(component, frame)).collect()
    } else {
        Vec::new()
    };
    for row in 0..frame.units.1 {
        for pass in passes.iter_mut() {
            if frame.progressive {
                simd.vectorize(
                    #[inline(always)]
                    || progressive::read_row(pass, frame, row, &mut stores),
                );
            } else {
                simd.vectorize(
                    #[inline(always)]
                    || baseline::read_row(simd, pass, frame, row, &mut planes),
                );
            }
        }
        for ((store, component), plane) in stores.iter_mut().zip(&frame.components).zip(&mut planes) {
            simd.vectorize(
                #[inline(always)]
                || store.transform(simd, component, plane),
            );
        }
        simd.vectorize(
            #[inline(always)]
            || canvas.paint(simd, frame, &planes, row),
        );
        planes.iter_mut().for_each(Plane::carry);
    }
    canvas.into_pixels()
}

/// Returns the fraction of blocks with at least a mean, 0 to 1.
fn share_of_data(frame: &Frame<'_>, passes: &[Pass<'_>]) -> f64 {
    let of_scan = |pass: &Pass<'_>, scan: &Scan<'_>| match &scan.parts[..] {
        [only] => {
            let (across, down) = frame.components[only.component].blocks;
            pass.units_read as f64 / (across * down) as f64
        }
        _ => pass.units_read as f64 / (frame.units.0 * frame.units.1) as f64,
    };
    let of_component = |index: usize| {
        let has = |scan: &Scan<'_>| scan.first == 0 && scan.parts.iter().any(|part| part.component == index);
        let shares = passes.iter().filter(|pass| has(pass.scan)).map(|pass| of_scan(pass, pass.scan));
        shares.fold(0.0, f64::max)
    };
    (0..frame.components.len()).map(of_component).sum::<f64>() / frame.components.len() as f64
}
