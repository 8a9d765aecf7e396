//! Limits checked before any pixel is decoded.

use serde::{Deserialize, Serialize};

use super::error::{Error, Excess};

/// Limits of one image, checked on its headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Maximum width × height in pixels; default 50,000,000.
    pub max_pixels: u64,
    /// Maximum side in pixels; default 16,384: WebP's limit is 16,383, and no camera exceeds it.
    pub max_side: u32,
    /// Maximum peak memory of one image in bytes; default 512 MiB.
    pub max_memory: u64,
    /// Maximum decompressed color profile in bytes; default 4 MiB (the largest printer profiles have about 3 MB).
    pub max_metadata: u64,
    /// Maximum scans of a JPEG; default 100. Encoders write 1 to 12; a malicious file may repeat them.
    pub max_scans: u32,
    /// Maximum bytes of a rendition, enforced by changing its format and quality; default: the source's bytes.
    pub max_rendition: Option<u64>,
}

/// Maximum scans of an image with the maximum pixels; smaller images may have more, up to `max_scans`.
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
    /// Rejects dimensions that are zero or exceed the limits.
    pub(super) fn check_size(&self, width: u32, height: u32) -> Result<(), Error> {
        if width == 0 || height == 0 {
            return Err(Error::damaged("its width or height is zero"));
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(Error::TooManyPixels { width, height, max_pixels: self.max_pixels });
        }
        if width.max(height) > self.max_side {
            return Err(Error::SideTooLong { width, height, max_side: self.max_side });
        }
        Ok(())
    }

    /// Rejects an image whose decoding needs more than `max_memory`.
    pub(super) fn check_cost(&self, needed: u64) -> Result<(), Error> {
        if needed > self.max_memory {
            return Err(Error::TooComplex(Excess::Memory { needed, limit: self.max_memory }));
        }
        Ok(())
    }

    /// Rejects too many scans for the image's size: work is scans × pixels.
    pub(super) fn check_scans(&self, found: u32, width: u32, height: u32) -> Result<(), Error> {
        let limit = self.most_scans(width, height);
        if found > limit {
            return Err(Error::TooComplex(Excess::Scans { found, limit }));
        }
        Ok(())
    }

    /// Returns the maximum scans of an image of this size.
    fn most_scans(&self, width: u32, height: u32) -> u32 {
        let pixels = (u64::from(width) * u64::from(height)).max(1);
        let by_work = (self.max_pixels * SCANS_AT_FULL_SIZE / pixels).max(1);
        u64::from(self.max_scans).min(by_work) as u32
    }

    /// Rejects a color profile of more than `max_metadata` bytes.
    pub(super) fn check_profile(&self, bytes: u64) -> Result<(), Error> {
        if bytes > self.max_metadata {
            return Err(Error::TooComplex(Excess::Profile { limit: self.max_metadata }));
        }
        Ok(())
    }
}
