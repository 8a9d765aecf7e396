//! Failed attempts of jobs, the history of a dead letter; and an index of finished jobs by age, for their deletion.

crate::step! {
    "m0008_job_attempts",
    up: [
        "CREATE TABLE job_attempts (
            id {id},
            job_id {int} NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
            attempt INTEGER NOT NULL,
            outcome TEXT NOT NULL CHECK (outcome IN ('retry', 'failed', 'crashed', 'worker_died')),
            error_code TEXT,
            error_message TEXT,
            ended_at {int} NOT NULL
        )",
        "CREATE INDEX job_attempts_of_job ON job_attempts (job_id, id)",
        "CREATE INDEX jobs_done ON jobs (updated_at, id) WHERE state = 'done'",
        "UPDATE jobs SET state = 'done'
         WHERE state = 'dead' AND generation < (SELECT generation FROM images WHERE images.id = jobs.image_id)",
    ],
    down: ["DROP INDEX jobs_done", "DROP TABLE job_attempts"]
}
