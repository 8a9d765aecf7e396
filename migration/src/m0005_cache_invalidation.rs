//! Which products changed: written in the transaction of the change. A shared cache's row goes once the cache was told;
//! for an in-process cache it is the log that other processes follow.

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
