//! Time of the last garbage collection, and the lease of the process that runs one: only one runs at a time.

crate::step! {
    "m0025_gc_turn",
    up: [
        "ALTER TABLE installation ADD COLUMN gc_ended_at {int}",
        "ALTER TABLE installation ADD COLUMN gc_lease_token {text}",
        "ALTER TABLE installation ADD COLUMN gc_lease_until {int}",
    ],
    down: [
        "ALTER TABLE installation DROP COLUMN gc_lease_until",
        "ALTER TABLE installation DROP COLUMN gc_lease_token",
        "ALTER TABLE installation DROP COLUMN gc_ended_at",
    ]
}
