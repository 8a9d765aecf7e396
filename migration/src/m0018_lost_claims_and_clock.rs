//! Counts of each job's lost claims, and the clock that processes on one SQLite file share.

crate::step! {
    "m0018_lost_claims_and_clock",
    up: [
        "CREATE TABLE lost_claims (
            job_id {int} PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
            lost INTEGER NOT NULL,
            ended INTEGER NOT NULL
        )",
        "CREATE TABLE clock_anchors (
            boot {text} PRIMARY KEY,
            booted_at {int} NOT NULL
        )",
    ],
    down: ["DROP TABLE clock_anchors", "DROP TABLE lost_claims"]
}
