//! Variants of images, requested by signed URLs. Each is made once and kept until it is evicted.

crate::step! {
    "m0015_variants",
    up: [
        "CREATE TABLE variants (
            id {id},
            image_id {int} NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            name {text} NOT NULL,
            source_key {text} NOT NULL,
            bytes {int} NOT NULL,
            blob_key {text} NOT NULL,
            created_at {int} NOT NULL,
            UNIQUE (image_id, name)
        )",
        "CREATE INDEX variants_of_image ON variants (image_id, id)",
        "CREATE INDEX variants_by_blob ON variants (blob_key)",
    ],
    down: ["DROP TABLE variants"]
}
