//! Webhooks and their deliveries.

crate::step! {
    "m0013_webhooks",
    up: [
        "CREATE TABLE webhooks (
            id {id},
            url TEXT NOT NULL,
            types TEXT NOT NULL,
            secret TEXT NOT NULL,
            enabled INTEGER NOT NULL,
            disabled_reason TEXT,
            failing_since {int},
            created_at {int} NOT NULL
        )",
        "CREATE TABLE webhook_deliveries (
            id {id},
            webhook_id {int} NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
            message_id TEXT NOT NULL,
            kind TEXT NOT NULL,
            body TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'dead')),
            attempt INTEGER NOT NULL,
            run_at {int} NOT NULL,
            lease_token TEXT,
            lease_until {int},
            response_status INTEGER,
            error_message TEXT,
            created_at {int} NOT NULL,
            updated_at {int} NOT NULL
        )",
        "CREATE INDEX webhook_deliveries_of_webhook ON webhook_deliveries (webhook_id, id)",
        "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, run_at, id) WHERE state = 'queued'",
        "CREATE INDEX webhook_deliveries_running ON webhook_deliveries (webhook_id, lease_until) WHERE state = 'running'",
        "CREATE INDEX webhook_deliveries_over ON webhook_deliveries (updated_at, id) WHERE state IN ('done', 'dead')",
    ],
    down: ["DROP TABLE webhook_deliveries", "DROP TABLE webhooks"]
}
