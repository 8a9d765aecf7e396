//! Decodes AVIF: the coded images side by side, then alpha. Encodes AVIF with the feature `avif`.

mod color;
mod decoder;
#[cfg(feature = "avif")]
mod encoder;

#[cfg(feature = "avif")]
pub(super) use encoder::encode;

use color::Converter;
use decoder::Coded;

use super::decoded::Decoded;
use super::error::Error;
use super::header::avif::{Layout, Mosaic, layout};
use super::limits::Limits;
use super::pixels::Pixels;

/// Decodes `source`.
///
/// # Errors
/// As [`layout`]; [`Error::Undecodable`] if a coded image is damaged or truncated, because no part of it can be shown.
pub(super) fn decode(source: &[u8], limits: &Limits) -> Result<Decoded, Error> {
    let layout = layout(source, limits)?;
    let alpha = layout.alpha.is_some();
    let channels = if alpha { 4 } else { 3 };
    let data = vec![0; layout.width as usize * layout.height as usize * channels];
    let mut pixels = Pixels { width: layout.width, height: layout.height, alpha, data };
    each_tile(&layout.color, |coded, left, top| {
        let converter = Converter::new(coded, layout.coding);
        for_each_row(&layout, coded, (left, top), |y, across, at| {
            let target = &mut pixels.data[at * channels..][..across * channels];
            converter.set_colors(coded, y, target, channels);
        });
    })?;
    if let Some(mosaic) = &layout.alpha {
        each_tile(mosaic, |coded, left, top| {
            for_each_row(&layout, coded, (left, top), |y, across, at| {
                color::set_alpha(coded, y, &mut pixels.data[at * 4..][..across * 4], layout.multiplied);
            });
        })?;
    }
    Ok(Decoded { pixels, warning: None })
}

/// Decodes the tiles one by one and passes each with its position.
fn each_tile(mosaic: &Mosaic<'_>, mut lay: impl FnMut(&Coded, u32, u32)) -> Result<(), Error> {
    for (index, tile) in mosaic.tiles.iter().enumerate() {
        if !tile.whole {
            return Err(Error::damaged("it ends before its pixels"));
        }
        let coded = Coded::decode(tile.join(), mosaic.tile)?;
        let (column, row) = (index as u32 % mosaic.columns, index as u32 / mosaic.columns);
        lay(&coded, column * mosaic.tile.0, row * mosaic.tile.1);
    }
    Ok(())
}

/// Calls `set` for the visible rows of a coded image, with the number of visible pixels and the target.
fn for_each_row(layout: &Layout<'_>, coded: &Coded, place: (u32, u32), mut set: impl FnMut(usize, usize, usize)) {
    let across = coded.width.min(layout.width.saturating_sub(place.0)) as usize;
    let down = coded.height.min(layout.height.saturating_sub(place.1)) as usize;
    for y in 0..down {
        set(y, across, (place.1 as usize + y) * layout.width as usize + place.0 as usize);
    }
}
