//! The job queue. A job's row is written in the transaction of its change, so it is also the outbox for a broker.
//! The partial indexes of live jobs exclude finished rows.

crate::step! {
    "m0004_jobs",
    up: [
        "CREATE TABLE jobs (
            id {id},
            image_id {int} NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            generation INTEGER NOT NULL,
            payload TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'dead')),
            attempt INTEGER NOT NULL,
            crashes INTEGER NOT NULL,
            decoding INTEGER NOT NULL,
            run_at {int} NOT NULL,
            dispatched_at {int},
            lease_token TEXT,
            lease_until {int},
            error_code TEXT,
            error_message TEXT,
            request_id TEXT,
            created_at {int} NOT NULL,
            updated_at {int} NOT NULL,
            UNIQUE (image_id, generation)
        )",
        "CREATE INDEX jobs_due ON jobs (run_at, id) WHERE state = 'queued'",
        "CREATE INDEX jobs_to_dispatch ON jobs (run_at, id) WHERE state = 'queued' AND dispatched_at IS NULL",
        "CREATE INDEX jobs_dispatched ON jobs (dispatched_at) WHERE state = 'queued' AND dispatched_at IS NOT NULL",
        "CREATE INDEX jobs_orphaned ON jobs (run_at, id) WHERE state = 'queued' AND attempt > 0 AND error_code IS NULL",
        "CREATE INDEX jobs_leased ON jobs (lease_until) WHERE state = 'running'",
        "CREATE INDEX jobs_dead ON jobs (updated_at, id) WHERE state = 'dead'",
    ],
    down: ["DROP TABLE jobs"]
}
