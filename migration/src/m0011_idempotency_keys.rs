//! Results of requests with an idempotency key, so that each is executed once.

crate::step! {
    "m0011_idempotency_keys",
    up: [
        "CREATE TABLE idempotency_keys (
            scope {text} NOT NULL,
            key {text} NOT NULL,
            fingerprint TEXT NOT NULL,
            status INTEGER,
            location TEXT,
            body TEXT,
            created_at {int} NOT NULL,
            PRIMARY KEY (scope, key)
        )",
        "CREATE INDEX idempotency_keys_by_creation ON idempotency_keys (created_at)",
    ],
    down: ["DROP TABLE idempotency_keys"]
}
