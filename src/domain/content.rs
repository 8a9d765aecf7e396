//! What is worked on: pictures that agree in it have the same outcome, so that it is worked out once.

/// The bytes of a picture and what is made of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// SHA-256 of the source's bytes, 64 digits of lower-case hex.
    pub sha256: String,
    /// Stands for every setting that the outcome depends on: the presets, the codecs and their version.
    pub recipe: String,
}
