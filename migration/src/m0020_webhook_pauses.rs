//! Consecutive failures of each webhook, and the end of its pause.

crate::step! {
    "m0020_webhook_pauses",
    up: [
        "ALTER TABLE webhooks ADD COLUMN failures {int} NOT NULL DEFAULT 0",
        "ALTER TABLE webhooks ADD COLUMN paused_until {int}",
    ],
    down: [
        "ALTER TABLE webhooks DROP COLUMN paused_until",
        "ALTER TABLE webhooks DROP COLUMN failures",
    ]
}
