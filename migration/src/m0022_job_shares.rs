//! The user and the source host of each job, for round-robin order of users and a limit of downloads per host.

crate::step! {
    "m0022_job_shares",
    up: [
        "ALTER TABLE jobs ADD COLUMN user_id {text}",
        "ALTER TABLE jobs ADD COLUMN host {text}",
        "UPDATE jobs SET user_id = (SELECT products.user_id FROM images JOIN products ON products.id = images.product_id
            WHERE images.id = jobs.image_id)
         WHERE state IN ('queued', 'running')",
        "CREATE INDEX jobs_of_users ON jobs (user_id, run_at, id) WHERE state = 'queued'",
    ],
    down: [
        "DROP INDEX jobs_of_users",
        "ALTER TABLE jobs DROP COLUMN host",
        "ALTER TABLE jobs DROP COLUMN user_id",
    ]
}
