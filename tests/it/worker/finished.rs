//! Finished jobs are deleted after a week, and finding them costs the same however many jobs there are.

use sea_orm::{ConnectionTrait as _, Statement};

use crate::support::{Origin, Setup, TestApp, images, on_both_setups};

/// Adds finished jobs of the only image, done this many days ago.
async fn add_finished(app: &TestApp, count: usize, days_ago: i64) {
    let done_at = pm::clock::Timestamp::now().0 - days_ago * 86_400_000_000;
    app.sql(&format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
         INSERT INTO jobs (image_id, generation, payload, state, attempt, crashes, decoding, run_at, created_at, updated_at)
         SELECT (SELECT min(id) FROM images), 1000000 * {days_ago} + n, '{{}}', 'done', 1, 0, 0, 0, 0, {done_at}
         FROM numbers"
    ))
    .await;
}

async fn jobs(app: &TestApp) -> i64 {
    let connection = app.app.database.read();
    let count = Statement::from_string(connection.get_database_backend(), "SELECT count(*) AS jobs FROM jobs");
    connection.query_one_raw(count).await.unwrap().unwrap().try_get("", "jobs").unwrap()
}

async fn plan(app: &TestApp, sql: &str) -> String {
    let connection = app.app.database.read();
    let (explain, column) = match app.setup {
        Setup::Embedded => ("EXPLAIN QUERY PLAN", "detail"),
        Setup::Full => ("EXPLAIN", "QUERY PLAN"),
    };
    let explained = Statement::from_string(connection.get_database_backend(), format!("{explain} {sql}"));
    let rows = connection.query_all_raw(explained).await.unwrap();
    rows.iter().map(|row| row.try_get::<String>("", column).unwrap()).collect::<Vec<_>>().join("\n")
}

on_both_setups! {
    async fn finished_jobs_are_deleted_after_a_week_in_batches(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        app.drain().await;
        add_finished(app, 300, 6).await;
        add_finished(app, 4_200, 8).await;
        // The running server's sweeper may be faster than the test.
        let mut rounds = 0;
        while jobs(app).await > 301 {
            assert!(app.app.catalog.delete_expired_jobs().await.unwrap() <= 4_000, "a round is bounded");
            rounds += 1;
            assert!(rounds < 20, "{} jobs are left", jobs(app).await);
        }
        assert_eq!(jobs(app).await, 301, "jobs finished this week are kept");
        assert_eq!(app.product(&id).await["status"], "ready");
        assert_eq!(app.app.catalog.delete_expired_jobs().await.unwrap(), 0);
    }

    async fn finished_jobs_are_found_by_an_index(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        add_finished(app, 3_000, 1).await;
        app.sql("ANALYZE").await;
        for sql in [
            "SELECT id FROM jobs WHERE state = 'done' AND updated_at < 5 ORDER BY updated_at, id LIMIT 500",
            "SELECT 1 FROM jobs WHERE state = 'done' AND updated_at >= 9000000000000000 LIMIT 100001",
        ] {
            let plan = plan(app, sql).await;
            assert!(plan.contains("jobs_done"), "{plan}");
        }
    }
}
