//! Images of products and their renditions.

crate::step! {
    "m0003_images",
    up: [
        "CREATE TABLE images (
            id {id},
            product_id {int} NOT NULL REFERENCES products (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            source_url TEXT,
            source_key TEXT,
            status TEXT NOT NULL CHECK (status IN ('pending', 'processing', 'ready', 'failed')),
            generation INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            error_code TEXT,
            error_message TEXT,
            width INTEGER,
            height INTEGER,
            format TEXT,
            bytes {int},
            thumbhash TEXT,
            dominant_color TEXT,
            warnings TEXT NOT NULL,
            created_at {int} NOT NULL,
            updated_at {int} NOT NULL,
            CHECK ((source_url IS NULL) <> (source_key IS NULL)),
            UNIQUE (product_id, position)
        )",
        "CREATE INDEX images_by_status ON images (status, id)",
        "CREATE TABLE renditions (
            id {id},
            image_id {int} NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            preset TEXT NOT NULL,
            format TEXT NOT NULL,
            width INTEGER NOT NULL,
            height INTEGER NOT NULL,
            bytes {int} NOT NULL,
            blob_key TEXT NOT NULL,
            UNIQUE (image_id, preset, format)
        )",
        "CREATE INDEX renditions_by_blob ON renditions (blob_key)",
    ],
    down: ["DROP TABLE renditions", "DROP TABLE images"]
}
