//! Deduplication: the checksum of an image's source, the fingerprint of its pipeline, and the key that a running job
//! locks.

crate::step! {
    "m0007_image_content",
    up: [
        "ALTER TABLE images ADD COLUMN source_sha256 TEXT",
        "ALTER TABLE images ADD COLUMN recipe TEXT",
        "ALTER TABLE images ADD COLUMN perceptual_hash TEXT",
        "CREATE INDEX images_by_content ON images (source_sha256, recipe) WHERE recipe IS NOT NULL AND status = 'ready'",
        "ALTER TABLE jobs ADD COLUMN working_on TEXT",
        "CREATE UNIQUE INDEX jobs_by_content ON jobs (working_on) WHERE working_on IS NOT NULL",
    ],
    down: [
        "DROP INDEX jobs_by_content",
        "ALTER TABLE jobs DROP COLUMN working_on",
        "DROP INDEX images_by_content",
        "ALTER TABLE images DROP COLUMN perceptual_hash",
        "ALTER TABLE images DROP COLUMN recipe",
        "ALTER TABLE images DROP COLUMN source_sha256",
    ]
}
