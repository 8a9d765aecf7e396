//! The keys of one caller in their order, so that their number can be bounded.

crate::step! {
    "m0023_idempotency_callers",
    up: ["CREATE INDEX idempotency_keys_of_callers ON idempotency_keys (scope, created_at)"],
    down: ["DROP INDEX idempotency_keys_of_callers"]
}
