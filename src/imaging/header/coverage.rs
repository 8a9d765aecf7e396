//! Which coefficients of a JPEG its scans deliver, and to which precision: a file that was cut between two scans and
//! then given an end looks whole by its markers, but lacks some.

use crate::imaging::bytes::slice;

/// A coefficient that no scan has delivered.
const MISSING: u8 = u8::MAX;

/// The lowest bit that is known of each of the 64 coefficients of each component.
#[derive(Clone, Debug)]
pub(super) struct Coverage {
    components: Vec<(u8, [u8; 64])>,
    /// Whether scans bring some coefficients or some bits of them only.
    progressive: bool,
}

impl Coverage {
    /// Nothing is known yet of the components of a frame header, which is `body`.
    pub(super) fn of_frame(marker: u8, body: &[u8]) -> Self {
        let ids = body.get(6..).unwrap_or_default().chunks_exact(3).map(|part| part[0]);
        Self { components: ids.map(|id| (id, [MISSING; 64])).collect(), progressive: marker == 0xc2 }
    }

    /// Adds what a scan delivers, by its header. Of a scan that makes no sense nothing is added.
    pub(super) fn add_scan(&mut self, body: &[u8]) {
        let count = usize::from(body.first().copied().unwrap_or(0));
        let (Some(ids), Some(&[first, last, bits])) = (slice(body, 1, 2 * count), slice(body, 1 + 2 * count, 3)) else {
            return;
        };
        // In a sequential frame these figures have no choice, and some programs write nonsense there.
        let (first, last, bits) = if self.progressive { (first, last, bits) } else { (0, 63, 0) };
        let (first, last) = (usize::from(first), usize::from(last));
        for id in ids.chunks_exact(2).map(|part| part[0]) {
            let known = self.components.iter_mut().find(|component| component.0 == id);
            if let Some(band) = known.and_then(|component| component.1.get_mut(first..=last.max(first))) {
                band.iter_mut().for_each(|bit| *bit = (*bit).min(bits & 0x0f));
            }
        }
    }

    /// Whether every coefficient is known to its last bit.
    pub(super) fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.1.iter().all(|bit| *bit == 0))
    }
}
