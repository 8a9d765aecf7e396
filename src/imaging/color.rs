//! Converts pixels from an ICC profile to sRGB.

use std::panic::{AssertUnwindSafe, catch_unwind};

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::pixels::Pixels;

/// The profile is invalid or does not fit the pixels, which are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProfileUnfit;

/// Converts pixels from an ICC `profile` to sRGB. Gray pixels, stored as three equal samples, may have a gray profile.
pub(super) fn to_srgb(pixels: &mut Pixels, profile: &[u8], gray: bool) -> Result<(), ProfileUnfit> {
    // A profile is untrusted: one that makes the library panic counts as unfit.
    catch_unwind(AssertUnwindSafe(|| convert(pixels, profile, gray))).unwrap_or(Err(ProfileUnfit))
}

fn convert(pixels: &mut Pixels, profile: &[u8], gray: bool) -> Result<(), ProfileUnfit> {
    let profile = ColorProfile::new_from_slice(profile).map_err(|_| ProfileUnfit)?;
    match profile.color_space {
        DataColorSpace::Rgb => convert_colors(pixels, &profile),
        DataColorSpace::Gray if gray => convert_grays(pixels, &profile),
        _ => Err(ProfileUnfit),
    }
}

fn convert_colors(pixels: &mut Pixels, profile: &ColorProfile) -> Result<(), ProfileUnfit> {
    let layout = if pixels.alpha { Layout::Rgba } else { Layout::Rgb };
    let transform = profile
        .create_transform_8bit(layout, &ColorProfile::new_srgb(), layout, TransformOptions::default())
        .map_err(|_| ProfileUnfit)?;
    let mut converted = vec![0; pixels.data.len()];
    transform.transform(&pixels.data, &mut converted).map_err(|_| ProfileUnfit)?;
    pixels.data = converted;
    Ok(())
}

/// Uses a table: there are only 256 grays.
fn convert_grays(pixels: &mut Pixels, profile: &ColorProfile) -> Result<(), ProfileUnfit> {
    let transform = profile
        .create_transform_8bit(Layout::Gray, &ColorProfile::new_srgb(), Layout::Rgb, TransformOptions::default())
        .map_err(|_| ProfileUnfit)?;
    let grays: Vec<u8> = (0..=255).collect();
    let mut table = vec![0; 3 * grays.len()];
    transform.transform(&grays, &mut table).map_err(|_| ProfileUnfit)?;
    let channels = pixels.channels();
    for pixel in pixels.data.chunks_exact_mut(channels) {
        let at = 3 * usize::from(pixel[0]);
        pixel[..3].copy_from_slice(&table[at..at + 3]);
    }
    Ok(())
}
