//! Index of images by uploaded source file, to find out whether an image still uses a file.

crate::step! {
    "m0009_source_keys",
    up: ["CREATE INDEX images_by_source ON images (source_key) WHERE source_key IS NOT NULL"],
    down: ["DROP INDEX images_by_source"]
}
