//! Workers that die, freeze or resume.

use std::time::Duration;

use pm::{
    catalog::{AtRisk, Due, Error, Outcome, Settlement},
    code::ErrorCode,
    domain::{Content, Facts, Lapsed, Rendition},
};
use serde_json::json;

use crate::support::{Origin, Setup, images, on_both_setups};

fn outcome() -> Outcome {
    let facts = Facts {
        width: 1,
        height: 1,
        format: "png".into(),
        bytes: 1,
        thumbhash: String::new(),
        dominant_color: "#000000".into(),
        perceptual_hash: None,
    };
    let made =
        Rendition { preset: "large".into(), format: "png".into(), width: 1, height: 1, bytes: 1, key: "late".into() };
    Outcome { facts, warnings: Vec::new(), renditions: vec![made], presets: None, content: content("outcome") }
}

fn content(bytes: &str) -> Content {
    Content { sha256: bytes.into(), pipeline_fingerprint: "any".into() }
}

on_both_setups! {
    async fn a_job_whose_worker_dies_is_claimed_again(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        let dead = app.claim().await.expect("a due job");
        assert_eq!(app.product(&id).await["images"][0]["status"], "processing");
        assert_eq!(app.drain().await, 0, "no other worker gets it during the lease");
        assert!(app.app.catalog.extend_lease(&dead.job).await.unwrap());

        assert_eq!(app.let_workers_die().await, 1);
        assert_eq!(app.drain().await, 1);
        let image = app.product(&id).await["images"][0].clone();
        assert_eq!((&image["status"], &image["attempts"]), (&json!("ready"), &json!(2)));
    }

    async fn a_worker_without_its_lease_changes_nothing(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        let frozen = app.claim().await.expect("a due job");
        app.let_leases_run_out().await;
        app.drain().await;
        let before = app.product(&id).await;

        let catalog = &app.app.catalog;
        assert!(!catalog.extend_lease(&frozen.job).await.unwrap());
        let failed = Settlement::Fail(ErrorCode::Undecodable, "late".into());
        for settlement in [Settlement::Ready(outcome()), failed, Settlement::Release] {
            assert!(matches!(catalog.settle(&frozen, settlement).await, Err(Error::LeaseLost)));
        }
        assert_eq!(app.product(&id).await, before);
    }

    async fn an_image_that_kills_three_workers_fails_alone(app: &TestApp) {
        let poison = app.create(&["https://example.com/poison.jpg".into()]).await["id"].clone();
        let waiting = app.create(&["https://example.com/slow.jpg".into()]).await["id"].clone();
        for _ in 0..3 {
            // The relay may hold a row for a moment, so either of the two may come first.
            let both = [app.claim().await.expect("one image"), app.claim().await.expect("the other image")];
            let [decoded, downloaded] = if both[0].product_id.0 == poison {
                both
            } else {
                let [one, other] = both;
                [other, one]
            };
            assert!(app.app.catalog.begin_decoding(&decoded.job, &content("poison"), AtRisk::Worker).await.unwrap());
            assert_eq!(downloaded.product_id.0, waiting);
            app.let_workers_die().await;
            app.let_time_pass().await;
        }
        let product = app.product(&poison).await;
        assert_eq!(product["status"], "failed");
        assert_eq!(product["images"][0]["error"]["code"], "poison");
        assert_eq!(app.product(&waiting).await["status"], "processing", "it only waited beside the poison");
    }

    async fn an_image_that_kills_decoders_is_retried_twice(app: &TestApp) {
        let id = app.create(&["https://example.com/poison.jpg".into()]).await["id"].clone();
        let catalog = &app.app.catalog;
        for attempt in 1..=3 {
            let claimed = app.claim().await.expect("it is due");
            assert_eq!(claimed.job.attempt, attempt);
            assert!(catalog.begin_decoding(&claimed.job, &content("poison"), AtRisk::Worker).await.unwrap());
            let crash = Settlement::Crash("the decoder was killed".into(), Duration::from_secs(40));
            catalog.settle(&claimed, crash.clone()).await.unwrap();
            assert!(matches!(catalog.settle(&claimed, crash).await, Err(Error::LeaseLost)), "the claim has ended");
            if attempt < 3 {
                let image = app.product(&id).await["images"][0].clone();
                assert_eq!((&image["status"], &image["attempts"]), (&json!("pending"), &json!(attempt)));
                assert_eq!(image["error"]["code"], "poison");
                assert!(app.claim().await.is_none(), "not before the delay is over");
                app.let_time_pass().await;
            }
        }
        let image = app.product(&id).await["images"][0].clone();
        assert_eq!((&image["status"], &image["attempts"]), (&json!("failed"), &json!(3)));
        assert_eq!(image["error"]["code"], "poison");
        let depth = catalog.depth().await.unwrap();
        assert_eq!((depth.queued, depth.running, depth.dead), (0, 0, 1));
    }

    async fn deaths_of_workers_and_of_decoders_add_up(app: &TestApp) {
        let id = app.create(&["https://example.com/poison.jpg".into()]).await["id"].clone();
        let catalog = &app.app.catalog;
        for _ in 0..2 {
            let claimed = app.claim().await.expect("it is due");
            assert!(catalog.begin_decoding(&claimed.job, &content("poison"), AtRisk::Worker).await.unwrap());
            let crash = Settlement::Crash("the decoder was killed".into(), Duration::ZERO);
            catalog.settle(&claimed, crash).await.unwrap();
            app.let_time_pass().await;
        }
        let last = app.claim().await.expect("it is due");
        assert!(catalog.begin_decoding(&last.job, &content("poison"), AtRisk::Worker).await.unwrap(), "no worker processes it any more");
        app.let_workers_die().await;
        let image = app.product(&id).await["images"][0].clone();
        assert_eq!((&image["status"], &image["error"]["code"]), (&json!("failed"), &json!("poison")));
        assert_eq!(catalog.depth().await.unwrap().dead, 1);
    }

    async fn a_workers_death_does_not_count_against_an_isolated_image(app: &TestApp) {
        let id = app.create(&["https://example.com/slow.jpg".into()]).await["id"].clone();
        for attempt in 1..=20 {
            assert_eq!(app.product(&id).await["status"], "processing", "attempt {attempt}");
            let claimed = app.claim().await.expect("it is due at once");
            assert_eq!(claimed.job.attempt, attempt);
            assert!(app.app.catalog.begin_decoding(&claimed.job, &content("slow"), AtRisk::Decoder).await.unwrap());
            app.let_workers_die().await;
        }
        let image = app.product(&id).await["images"][0].clone();
        assert_eq!((&image["status"], &image["error"]["code"]), (&json!("failed"), &json!("poison")), "some day it is enough");
    }

    async fn lost_claims_never_fail_an_image(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        origin.fail_first("/a.jpg", 4, 503);
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        for attempt in 1..=25 {
            let claimed = app.claim().await.expect("it is due");
            assert_eq!((claimed.job.attempt, claimed.job.lost), (attempt, attempt - 1));
            // No process knows that the worker ended, so the image's state does not matter.
            assert!(app.app.catalog.begin_decoding(&claimed.job, &content("slow"), AtRisk::Worker).await.unwrap());
            assert_eq!(app.let_leases_run_out().await, 1);
            if attempt > 2 {
                assert!(app.claim().await.is_none(), "it waits longer and longer");
            }
            app.let_time_pass().await;
        }
        let image = app.product(&id).await["images"][0].clone();
        assert_eq!((&image["status"], &image["error"]), (&json!("pending"), &json!(null)));
        // Lost claims use up no attempt: it may still fail four times.
        for _ in 0..5 {
            assert_eq!(app.drain().await, 1);
            app.let_time_pass().await;
        }
        assert_eq!(app.product(&id).await["status"], "ready");
    }

    async fn a_renewed_lease_is_not_taken_over(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let claimed = app.claim().await.expect("a due job");
        let catalog = &app.app.catalog;
        let lease = catalog.job_leases().await.unwrap().pop().expect("a lease");
        // The holder's clock stands still or went back: its heartbeat is still visible.
        app.sql("UPDATE jobs SET lease_until = 9000000000000000 WHERE state = 'running'").await;
        let before = catalog.job_leases().await.unwrap();
        assert!(catalog.extend_lease(&claimed.job).await.unwrap());
        assert_ne!(catalog.job_leases().await.unwrap(), before);
        assert_eq!(catalog.take_jobs(&[Lapsed { lease, holder_ended: true }]).await.unwrap(), 0);
        assert!(catalog.extend_lease(&claimed.job).await.unwrap());
    }

    async fn a_heartbeat_sets_the_end_of_the_lease_to_a_whole_lease_from_now(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let claimed = app.claim().await.expect("a due job");
        let catalog = &app.app.catalog;
        app.sql("UPDATE jobs SET lease_until = 1 WHERE state = 'running'").await;
        let now = catalog.now().await.unwrap();
        assert!(catalog.extend_lease(&claimed.job).await.unwrap());
        let until = app.number("SELECT lease_until FROM jobs").await;
        assert!(until >= now.plus(pm::db::jobs::LEASE).0, "{until}");
        assert!(catalog.begin_decoding(&claimed.job, &content("any"), AtRisk::Decoder).await.unwrap());
        assert!(app.number("SELECT lease_until FROM jobs").await > until);
    }

    async fn a_released_job_keeps_its_due_time_but_no_later_than_now(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let catalog = &app.app.catalog;
        for (run_at, stays) in [(1, true), (9_000_000_000_000_000, false)] {
            app.sql("UPDATE jobs SET run_at = 0").await;
            let claimed = app.claim().await.expect("a due job");
            app.sql(&format!("UPDATE jobs SET run_at = {run_at}")).await;
            catalog.settle(&claimed, Settlement::Release).await.unwrap();
            let place = app.number("SELECT run_at FROM jobs").await;
            assert_eq!(place == run_at, stays, "{run_at} became {place}");
            assert!(place <= catalog.now().await.unwrap().0);
        }
    }

    async fn leases_are_not_taken_over_by_the_wall_clock(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let claimed = app.claim().await.expect("a due job");
        for until in [0, 1, i64::MAX / 2] {
            app.sql(&format!("UPDATE jobs SET lease_until = {until} WHERE state = 'running'")).await;
            assert_eq!(app.app.catalog.watch_leases().await.unwrap(), 0);
        }
        assert!(app.app.catalog.extend_lease(&claimed.job).await.unwrap(), "its worker lives");
    }

    async fn jobs_of_an_ended_process_are_reclaimed_at_once(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let other = app.another().await;
        let claimed = app.claim_by(&other).await.expect("a due job");
        assert!(other.catalog.begin_decoding(&claimed.job, &content("slow"), AtRisk::Worker).await.unwrap());
        drop(other);
        // The test's server also checks each second, so either of the two may find it.
        let taken = async {
            while app.app.catalog.extend_lease(&claimed.job).await.unwrap() {
                app.app.catalog.watch_leases().await.unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        if app.setup == Setup::Embedded {
            // On PostgreSQL it takes ten seconds without a heartbeat, and the heartbeat above is one.
            tokio::time::timeout(Duration::from_secs(30), taken).await.expect("its lock is free");
        }
    }

    async fn a_clock_that_went_back_does_not_delay_retries(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let claimed = app.claim().await.expect("a due job");
        let retry = Settlement::Retry(ErrorCode::SourceUnavailable, "down".into(), Duration::from_secs(40));
        app.app.catalog.settle(&claimed, retry).await.unwrap();
        // As seen from a clock that went back by an hour.
        app.sql("UPDATE jobs SET run_at = run_at + 3600000000, updated_at = updated_at + 3600000000").await;
        app.app.catalog.correct_waiting().await.unwrap();
        let now = app.app.catalog.now().await.unwrap();
        let run_at = app.number("SELECT run_at FROM jobs").await;
        let wait = Duration::from_micros(u64::try_from(run_at - now.0).expect("in the future"));
        assert!(Duration::from_secs(20) < wait && wait <= Duration::from_secs(40), "{wait:?}");
        assert_eq!(app.app.catalog.correct_waiting().await.unwrap(), 0);
    }

    async fn a_clock_that_went_back_does_not_extend_a_webhooks_pause(app: &TestApp) {
        let webhook = json!({"url": "https://shop.example/hook"});
        assert_eq!(app.post("/webhooks", &webhook).await.status(), 201);
        let now = app.app.catalog.now().await.unwrap();
        let day = now.0 + 86_400_000_000;
        app.sql(&format!("UPDATE webhooks SET paused_until = {day}, failing_since = {day}")).await;
        app.app.catalog.correct_waiting().await.unwrap();
        let now = app.app.catalog.now().await.unwrap();
        for column in ["paused_until", "failing_since"] {
            let time = app.number(&format!("SELECT {column} FROM webhooks")).await;
            assert!(time <= now.0, "{column} is {time}");
        }
    }

    async fn a_job_of_a_newer_version_does_not_block_others(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        let newer = app.create(&["https://example.com/a.jpg".into()]).await["id"].clone();
        app.sql(r#"UPDATE jobs SET payload = '{"kind":"process_image","v":2,"presets":[{"name":"a"}]}'"#).await;
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        app.drain().await;
        assert_eq!(app.product(&id).await["status"], "ready");
        assert_eq!(app.product(&newer).await["images"][0]["status"], "pending", "a newer worker may do it");
    }

    async fn a_dead_workers_job_is_found_without_its_message(app: &TestApp) {
        let first = app.create(&["https://example.com/a.jpg".into()]).await["images"][0]["id"].clone();
        app.claim().await.expect("a due job");
        assert!(app.app.catalog.claim(Due::Orphan).await.unwrap().claimed().is_none(), "its worker lives");
        for _ in 0..3 {
            app.create(&["https://example.com/b.jpg".into()]).await;
        }
        app.let_workers_die().await;
        let orphan = loop {
            // The relay locks the row while it publishes the job.
            if let Some(orphan) = app.app.catalog.claim(Due::Orphan).await.unwrap().claimed() {
                break orphan;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_eq!((orphan.job.image_id.0.into(), orphan.job.attempt), (first, 2));
        assert!(app.app.catalog.claim(Due::Orphan).await.unwrap().claimed().is_none(), "the others were never claimed");
    }

    async fn a_released_job_has_not_used_an_attempt(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let first = app.claim().await.expect("a due job");
        app.app.catalog.settle(&first, Settlement::Release).await.unwrap();
        let second = app.claim().await.expect("the same job");
        assert_eq!((first.job.id, second.job.attempt), (second.job.id, 1));
    }

    async fn many_claimers_never_get_the_same_job(app: &TestApp) {
        for _ in 0..5 {
            app.create(&vec!["https://example.com/a.jpg".to_owned(); 8]).await;
        }
        let claimers = (0..8).map(|_| async {
            let mut claimed = Vec::new();
            while let Some(job) = app.claim().await {
                claimed.push(job.job.id);
            }
            claimed
        });
        let mut all = futures_util::future::join_all(claimers).await.concat();
        all.sort_unstable();
        let claims = all.len();
        all.dedup();
        assert_eq!((claims, all.len()), (40, 40));
    }
}
