//! The bounds that a picture must keep before any of its pixels are decoded.

use serde::{Deserialize, Serialize};

use super::error::{Error, Excess};

/// What one picture may cost. Checked on the headers alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Width times height, in pixels. 50,000,000 unless set.
    pub max_pixels: u64,
    /// The longer side, in pixels. 16,384 unless set: WebP's own limit is 16,383 and no camera passes it.
    pub max_side: u32,
    /// Peak memory of one picture, in bytes; 512 MiB unless set.
    pub max_memory: u64,
    /// A colour profile once unpacked, in bytes; 4 MiB unless set (the largest printer profiles have about 3 MB).
    pub max_metadata: u64,
    /// Scans of a JPEG, 100 unless set. Encoders write 1 to 12; a file may repeat them without end.
    pub max_scans: u32,
    /// Bytes that no rendition has more of, whatever becomes of its format and quality for that; those of the source unless set.
    pub max_rendition: Option<u64>,
}

/// Passes over all pixels that a picture of the most pixels may have; smaller ones have more, up to `max_scans`.
const SCANS_AT_FULL_SIZE: u64 = 16;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: 50_000_000,
            max_side: 16_384,
            max_memory: 512 << 20,
            max_metadata: 4 << 20,
            max_scans: 100,
            max_rendition: None,
        }
    }
}

impl Limits {
    /// Refuses dimensions that are zero or over the limits.
    pub(super) fn check_size(&self, width: u32, height: u32) -> Result<(), Error> {
        if width == 0 || height == 0 {
            return Err(Error::damaged("it has no width or no height"));
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(Error::TooManyPixels { width, height, max_pixels: self.max_pixels });
        }
        if width.max(height) > self.max_side {
            return Err(Error::SideTooLong { width, height, max_side: self.max_side });
        }
        Ok(())
    }

    /// Refuses a picture whose decoding takes more than `max_memory`.
    pub(super) fn check_cost(&self, needed: u64) -> Result<(), Error> {
        if needed > self.max_memory {
            return Err(Error::TooComplex(Excess::Memory { needed, limit: self.max_memory }));
        }
        Ok(())
    }

    /// Refuses more scans than the picture's size allows: work is scans times pixels.
    pub(super) fn check_scans(&self, found: u32, width: u32, height: u32) -> Result<(), Error> {
        let limit = self.most_scans(width, height);
        if found > limit {
            return Err(Error::TooComplex(Excess::Scans { found, limit }));
        }
        Ok(())
    }

    /// Scans that a picture of so many pixels may have.
    fn most_scans(&self, width: u32, height: u32) -> u32 {
        let pixels = (u64::from(width) * u64::from(height)).max(1);
        let by_work = (self.max_pixels * SCANS_AT_FULL_SIZE / pixels).max(1);
        u64::from(self.max_scans).min(by_work) as u32
    }

    /// Refuses a colour profile of more than `max_metadata` bytes.
    pub(super) fn check_profile(&self, bytes: u64) -> Result<(), Error> {
        if bytes > self.max_metadata {
            return Err(Error::TooComplex(Excess::Profile { limit: self.max_metadata }));
        }
        Ok(())
    }
}
