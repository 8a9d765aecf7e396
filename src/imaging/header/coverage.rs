//! Tracks which coefficients the scans of a JPEG deliver, and to which precision.
//!
//! A file truncated between two scans with an end marker added looks complete by its markers, but lacks coefficients.

use crate::imaging::bytes::slice;

/// No scan has delivered the coefficient.
const MISSING: u8 = u8::MAX;

/// Lowest known bit of each of the 64 coefficients per component.
#[derive(Clone, Debug)]
pub(super) struct Coverage {
    components: Vec<(u8, [u8; 64])>,
    /// Whether scans deliver only some coefficients or bits.
    progressive: bool,
}

impl Coverage {
    /// Creates an empty coverage for a frame header `body`.
    pub(super) fn of_frame(marker: u8, body: &[u8]) -> Self {
        let ids = body.get(6..).unwrap_or_default().chunks_exact(3).map(|part| part[0]);
        Self { components: ids.map(|id| (id, [MISSING; 64])).collect(), progressive: marker == 0xc2 }
    }

    /// Adds the coefficients of a scan header; ignores an invalid scan.
    pub(super) fn add_scan(&mut self, body: &[u8]) {
        let count = usize::from(body.first().copied().unwrap_or(0));
        let (Some(ids), Some(&[first, last, bits])) = (slice(body, 1, 2 * count), slice(body, 1 + 2 * count, 3)) else {
            return;
        };
        // In a sequential frame these values are fixed, and some programs write invalid ones.
        let (first, last, bits) = if self.progressive { (first, last, bits) } else { (0, 63, 0) };
        let (first, last) = (usize::from(first), usize::from(last));
        for id in ids.chunks_exact(2).map(|part| part[0]) {
            let known = self.components.iter_mut().find(|component| component.0 == id);
            if let Some(band) = known.and_then(|component| component.1.get_mut(first..=last.max(first))) {
                band.iter_mut().for_each(|bit| *bit = (*bit).min(bits & 0x0f));
            }
        }
    }

    /// Returns whether every coefficient is known to its last bit.
    pub(super) fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.1.iter().all(|bit| *bit == 0))
    }
}
