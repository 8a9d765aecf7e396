//! Pending cache invalidations, written in the transaction of the change. With a shared cache, a row is deleted after
//! the cache entry. With in-process caches, the rows are the log that other processes read.

crate::step! {
    "m0005_cache_invalidation",
    up: [
        "CREATE TABLE cache_invalidation (
            id {id},
            product_id {int} NOT NULL,
            created_at {int} NOT NULL
        )",
        "CREATE INDEX cache_invalidation_by_age ON cache_invalidation (created_at, id)",
    ],
    down: ["DROP TABLE cache_invalidation"]
}
