//! Failed jobs are kept with all their attempts until they are requeued or removed.

use std::time::Duration;

use pm::{
    catalog::{Error, Selection, Settlement},
    clock::Timestamp,
    code::ErrorCode,
    domain::{Attempt, AttemptOutcome, DeadLetter, DeadQuery, JobId},
};
use serde_json::{Value, json};

use crate::support::{Origin, TestApp, images, on_both_setups};

async fn letters(app: &TestApp) -> Vec<DeadLetter> {
    app.app.catalog.dead_letters(&DeadQuery { limit: 100, before: None }).await.unwrap().items
}

/// Returns the only dead letter and its attempts.
async fn letter(app: &TestApp) -> (DeadLetter, Vec<Attempt>) {
    let all = letters(app).await;
    assert_eq!(all.len(), 1, "{all:?}");
    app.app.catalog.dead_letter(all[0].id).await.unwrap()
}

async fn image(app: &TestApp, id: &Value) -> Value {
    app.product(id).await["images"][0].clone()
}

/// Creates products whose images do not exist; their jobs have failed permanently.
async fn dead_products(app: &TestApp, origin: &Origin, count: usize) -> Vec<Value> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(app.create(&[origin.url(&format!("/missing-{number}.jpg"))]).await["id"].clone());
    }
    app.drain().await;
    ids
}

fn refused(outcome: Result<impl std::fmt::Debug, Error>) -> String {
    match outcome {
        Err(Error::Conflict(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

on_both_setups! {
    async fn every_failed_attempt_is_kept_with_its_reason(app: &TestApp) {
        let origin = Origin::start().await;
        let id = app.create(&[origin.url("/status/500?token=s3cret")]).await["id"].clone();
        app.claim().await.expect("a due job");
        app.let_workers_die().await;
        app.claim().await.expect("it is due again");
        app.let_leases_run_out().await;
        for _ in 0..5 {
            app.let_time_pass().await;
            assert_eq!(app.drain().await, 1);
        }
        let (letter, attempts) = letter(app).await;
        assert_eq!((json!(letter.product_id), letter.attempts, letter.crashes), (id, 7, 0));
        assert_eq!(letter.source.shown(), origin.url("/status/500?…"));
        assert!(letter.request_id.is_some(), "the request that caused it");
        let outcomes: Vec<_> = attempts.iter().map(|a| (a.number, a.outcome, a.error.as_ref().map(|e| e.0))).collect();
        let down = Some(ErrorCode::SourceUnavailable);
        let retry = AttemptOutcome::Retry;
        let expected = [
            (1, AttemptOutcome::WorkerDied, None), (2, AttemptOutcome::LeaseLost, None), (3, retry, down),
            (4, retry, down), (5, retry, down), (6, retry, down), (7, AttemptOutcome::Failed, down),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(attempts[6].ended_at, letter.died_at);
        assert!(attempts.is_sorted_by_key(|attempt| attempt.ended_at));
    }

    async fn only_the_latest_attempts_are_kept(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let catalog = &app.app.catalog;
        for number in 1..=60 {
            let claimed = app.claim().await.expect("it is due");
            let (code, message) = (ErrorCode::TimedOut, format!("no answer {number}"));
            let settlement = match number {
                60 => Settlement::Fail(code, message),
                _ => Settlement::Retry(code, message, Duration::ZERO),
            };
            catalog.settle(&claimed, settlement).await.unwrap();
        }
        let (letter, attempts) = letter(app).await;
        assert_eq!((letter.attempts, attempts.len()), (60, 50));
        assert_eq!((attempts[0].number, attempts[49].number), (11, 60));
    }

    async fn a_requeued_dead_letter_starts_with_zero_attempts(app: &TestApp) {
        let origin = Origin::start().await;
        let id = dead_products(app, &origin, 1).await.remove(0);
        assert_eq!(image(app, &id).await["status"], "failed");
        let (dead, _) = letter(app).await;
        let catalog = &app.app.catalog;
        assert_eq!(json!(catalog.retry_dead(dead.id, None).await.unwrap().value), id);
        let waiting = image(app, &id).await;
        assert_eq!((&waiting["status"], &waiting["attempts"]), (&json!("pending"), &json!(0)), "the cache was invalidated");
        assert_eq!(app.product(&id).await["status"], "processing");
        assert!(refused(catalog.retry_dead(dead.id, None).await).contains("not a dead letter"));
        assert!(letters(app).await.is_empty());

        origin.serve("/missing-0.jpg", "image/jpeg", images::jpeg(64, 64));
        let claimed = app.claim().await.expect("it is due at once");
        assert_eq!((claimed.job.id, claimed.job.attempt), (dead.id, 1), "the same row, with a new attempt count");
        catalog.settle(&claimed, Settlement::Release).await.unwrap();
        app.drain().await;
        assert_eq!(image(app, &id).await["status"], "ready");
        assert!(matches!(catalog.retry_dead(JobId(987_654), None).await, Err(Error::NotFound { .. })));
    }

    async fn a_dead_letter_of_an_older_generation_is_refused(app: &TestApp) {
        let origin = Origin::start().await;
        dead_products(app, &origin, 1).await;
        let (dead, _) = letter(app).await;
        // As an older version leaves it, which does not end dead jobs.
        app.sql("UPDATE images SET generation = generation + 1").await;
        let catalog = &app.app.catalog;
        assert!(refused(catalog.retry_dead(dead.id, None).await).contains("older generation of its image"));
        assert!(letters(app).await.is_empty());
        assert!(matches!(catalog.dead_letter(dead.id).await, Err(Error::NotFound { .. })));
        let batch = catalog.retry_all_dead(None, Timestamp::now(), 10).await.unwrap();
        assert!(batch.jobs.is_empty() && batch.last.is_none());
    }

    async fn reprocessing_an_image_removes_its_dead_letter(app: &TestApp) {
        let origin = Origin::start().await;
        let id = dead_products(app, &origin, 1).await.remove(0);
        let (first, _) = letter(app).await;
        let catalog = &app.app.catalog;
        let batch = catalog.reprocess(&Selection::default(), None, 10, None).await.unwrap();
        assert_eq!(batch.images, [first.image_id]);
        assert!(letters(app).await.is_empty());
        assert_eq!(catalog.depth().await.unwrap().dead, 0);
        assert!(refused(catalog.retry_dead(first.id, None).await).contains("queued again since"));

        app.drain().await;
        let (second, _) = letter(app).await;
        assert!(second.id != first.id && second.image_id == first.image_id);
        assert_eq!(image(app, &id).await["status"], "failed");
    }

    async fn all_dead_letters_are_requeued_in_batches(app: &TestApp) {
        let origin = Origin::start().await;
        let ids = dead_products(app, &origin, 5).await;
        let catalog = &app.app.catalog;
        let (until, mut after, mut sizes) = (Timestamp::now(), None, Vec::new());
        loop {
            let batch = catalog.retry_all_dead(after, until, 2).await.unwrap();
            after = batch.last;
            if after.is_none() {
                break;
            }
            sizes.push(batch.jobs.len());
            // They fail again at once, and are not requeued a second time.
            app.drain().await;
        }
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(letters(app).await.len(), 5);
        for id in &ids {
            assert_eq!(image(app, id).await["attempts"], 1);
        }
    }

    async fn removed_dead_letters_leave_their_images_failed(app: &TestApp) {
        let origin = Origin::start().await;
        let ids = dead_products(app, &origin, 3).await;
        let catalog = &app.app.catalog;
        let until = Timestamp::now();
        let later = dead_products(app, &origin, 1).await;
        assert_eq!(catalog.purge_dead(until, 2).await.unwrap(), 2);
        assert_eq!(catalog.purge_dead(until, 2).await.unwrap(), 1);
        assert_eq!(catalog.purge_dead(until, 2).await.unwrap(), 0);
        assert_eq!(json!(letter(app).await.0.product_id), later[0]);
        for id in &ids {
            assert_eq!(image(app, id).await["status"], "failed");
        }
        let batch = catalog.reprocess(&Selection::default(), None, 10, None).await.unwrap();
        assert_eq!(batch.images.len(), 4, "they can be run again");
    }

    async fn pages_of_dead_letters_have_no_gaps(app: &TestApp) {
        let origin = Origin::start().await;
        dead_products(app, &origin, 5).await;
        // Jobs that fail in one transaction have the same time.
        app.sql("UPDATE jobs SET updated_at = 7 WHERE id % 2 = 0").await;
        let all: Vec<_> = letters(app).await.iter().map(DeadLetter::cursor).collect();
        assert!(all.is_sorted_by_key(|letter| std::cmp::Reverse((letter.died_at, letter.id))), "{all:?}");
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = app.app.catalog.dead_letters(&DeadQuery { limit: 2, before }).await.unwrap();
            paged.extend(page.items.iter().map(DeadLetter::cursor));
            let Some(cursor) = page.next_cursor else { break };
            before = DeadQuery::parse([("cursor", cursor.as_str())]).unwrap().before;
        }
        assert_eq!(paged, all);
    }
}
