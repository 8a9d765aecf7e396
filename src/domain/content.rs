//! Deduplication key of an image: images with the same key have the same result, which is computed once.

/// The source bytes of an image and the fingerprint of its pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// SHA-256 of the source's bytes, 64 lower-case hex digits.
    pub sha256: String,
    /// Fingerprint of every setting that affects the result: presets, codecs and their versions.
    pub pipeline_fingerprint: String,
}
