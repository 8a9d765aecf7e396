//! The samples of one row of units, a plane a component, with the last rows of the row of units before.

use super::frame::{Component, Frame};
use super::idct::Target;

/// Rows that are carried over from one row of units to the next: enlarging looks at the rows above and below.
pub(super) const CARRIED: usize = 2;

/// The samples of one component.
pub(super) struct Plane {
    data: Vec<u8>,
    pub stride: usize,
    /// Rows of a row of units.
    pub fresh: usize,
    side: usize,
}

impl Plane {
    fn new(component: &Component, frame: &Frame<'_>) -> Self {
        let stride = frame.units.0 * component.across * component.side;
        let fresh = component.down * component.side;
        Self { data: vec![0x80; stride * (fresh + CARRIED)], stride, fresh, side: component.side }
    }

    pub(super) fn all_of(frame: &Frame<'_>) -> Vec<Self> {
        frame.components.iter().map(|component| Self::new(component, frame)).collect()
    }

    /// Where the samples of a block of the row of units go.
    #[inline(always)]
    pub(super) fn target(&mut self, across: usize, down: usize) -> Target<'_> {
        let from = (CARRIED + down * self.side) * self.stride;
        Target { rows: &mut self.data[from..], stride: self.stride, left: across * self.side }
    }

    /// A row; the first [`CARRIED`] are of the row of units before.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.data[row * self.stride..(row + 1) * self.stride]
    }

    /// Makes room for the next row of units.
    pub(super) fn carry(&mut self) {
        self.data.copy_within(self.fresh * self.stride.., 0);
    }
}
