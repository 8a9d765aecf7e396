//! Samples of one row of units, one plane per component, with the last rows of the previous row of units.

use super::frame::{Component, Frame};
use super::idct::Target;

/// Rows kept from the previous row of units: upsampling reads neighboring rows.
pub(super) const CARRIED_ROWS: usize = 2;

/// Samples of one component.
pub(super) struct Plane {
    data: Vec<u8>,
    pub stride: usize,
    /// Rows per row of units.
    pub fresh: usize,
    side: usize,
}

impl Plane {
    fn new(component: &Component, frame: &Frame<'_>) -> Self {
        let stride = frame.units.0 * component.across * component.side;
        let fresh = component.down * component.side;
        Self { data: vec![0x80; stride * (fresh + CARRIED_ROWS)], stride, fresh, side: component.side }
    }

    pub(super) fn all_of(frame: &Frame<'_>) -> Vec<Self> {
        frame.components.iter().map(|component| Self::new(component, frame)).collect()
    }

    /// Returns the target of a block of the row of units.
    #[inline(always)]
    pub(super) fn target(&mut self, across: usize, down: usize) -> Target<'_> {
        let from = (CARRIED_ROWS + down * self.side) * self.stride;
        Target { rows: &mut self.data[from..], stride: self.stride, left: across * self.side }
    }

    /// Returns a row; the first [`CARRIED_ROWS`] belong to the previous row of units.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.data[row * self.stride..(row + 1) * self.stride]
    }

    /// Prepares for the next row of units.
    pub(super) fn carry(&mut self) {
        self.data.copy_within(self.fresh * self.stride.., 0);
    }
}
