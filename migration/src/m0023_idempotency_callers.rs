//! Index of each principal's idempotency keys by age, to limit their number.

crate::step! {
    "m0023_idempotency_callers",
    up: ["CREATE INDEX idempotency_keys_of_callers ON idempotency_keys (scope, created_at)"],
    down: ["DROP INDEX idempotency_keys_of_callers"]
}
