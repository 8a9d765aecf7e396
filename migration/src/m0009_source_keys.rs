//! Which pictures have an uploaded file as their source: whoever wants to remove a file asks whether one has.

crate::step! {
    "m0009_source_keys",
    up: ["CREATE INDEX images_by_source ON images (source_key) WHERE source_key IS NOT NULL"],
    down: ["DROP INDEX images_by_source"]
}
