//! When orphaned blobs were last removed, and which process removes them now: one at a time, whatever restarts.

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
