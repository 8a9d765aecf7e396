//! Workers that die, freeze or come back.

use std::time::Duration;

use pm::{
    catalog::{Due, Error, Outcome, Settlement},
    code::ErrorCode,
    domain::{Content, Facts, Rendition},
};
use serde_json::json;

use crate::support::{Origin, TestApp, on_both_setups, pictures};

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
    Content { sha256: bytes.into(), recipe: "any".into() }
}

async fn let_leases_run_out(app: &TestApp) -> usize {
    app.sql("UPDATE jobs SET lease_until = 0 WHERE state = 'running'").await;
    app.app.catalog.recover_expired().await.unwrap()
}

on_both_setups! {
    async fn a_job_whose_worker_dies_is_claimed_again(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", pictures::jpeg(64, 64));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        let dead = app.claim().await.expect("a due job");
        assert_eq!(app.product(&id).await["images"][0]["status"], "processing");
        assert_eq!(app.drain().await, 0, "nobody else gets it while the lease lasts");
        assert!(app.app.catalog.extend_lease(&dead.job).await.unwrap());

        // The sweeper of the running server may be faster than the test.
        let_leases_run_out(app).await;
        assert_eq!(app.drain().await, 1);
        let image = app.product(&id).await["images"][0].clone();
        assert_eq!((&image["status"], &image["attempts"]), (&json!("ready"), &json!(2)));
    }

    async fn a_worker_that_was_thought_dead_changes_nothing(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", pictures::jpeg(64, 64));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        let frozen = app.claim().await.expect("a due job");
        let_leases_run_out(app).await;
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

    async fn a_picture_that_three_workers_died_over_is_given_up_alone(app: &TestApp) {
        let poison = app.create(&["https://example.com/poison.jpg".into()]).await["id"].clone();
        let waiting = app.create(&["https://example.com/slow.jpg".into()]).await["id"].clone();
        for _ in 0..3 {
            let decoded = app.claim().await.expect("the poison is due first");
            let downloaded = app.claim().await.expect("the other picture");
            assert!(app.app.catalog.begin_decoding(&decoded.job, &content("poison")).await.unwrap());
            assert_eq!(downloaded.product_id.0, waiting);
            let_leases_run_out(app).await;
            app.let_time_pass().await;
        }
        let product = app.product(&poison).await;
        assert_eq!(product["status"], "failed");
        assert_eq!(product["images"][0]["error"]["code"], "poison");
        assert_eq!(app.product(&waiting).await["status"], "processing", "it only waited beside the poison");
    }

    async fn a_picture_that_decoders_die_over_is_tried_again_twice(app: &TestApp) {
        let id = app.create(&["https://example.com/poison.jpg".into()]).await["id"].clone();
        let catalog = &app.app.catalog;
        for attempt in 1..=3 {
            let claimed = app.claim().await.expect("its time has come");
            assert_eq!(claimed.job.attempt, attempt);
            assert!(catalog.begin_decoding(&claimed.job, &content("poison")).await.unwrap());
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
            assert!(catalog.begin_decoding(&claimed.job, &content("poison")).await.unwrap());
            let crash = Settlement::Crash("the decoder was killed".into(), Duration::ZERO);
            catalog.settle(&claimed, crash).await.unwrap();
            app.let_time_pass().await;
        }
        let last = app.claim().await.expect("it is due");
        assert!(catalog.begin_decoding(&last.job, &content("poison")).await.unwrap(), "nobody is at it any more");
        let_leases_run_out(app).await;
        let image = app.product(&id).await["images"][0].clone();
        assert_eq!((&image["status"], &image["error"]["code"]), (&json!("failed"), &json!("poison")));
        assert_eq!(catalog.depth().await.unwrap().dead, 1);
    }

    async fn a_job_of_a_newer_version_does_not_stand_in_the_way(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", pictures::jpeg(64, 64));
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
        assert!(app.app.catalog.claim(Due::Orphan).await.unwrap().is_none(), "its worker lives");
        for _ in 0..3 {
            app.create(&["https://example.com/b.jpg".into()]).await;
        }
        let_leases_run_out(app).await;
        let orphan = loop {
            // The relay holds the row for the moment in which it hands it to the broker.
            if let Some(orphan) = app.app.catalog.claim(Due::Orphan).await.unwrap() {
                break orphan;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_eq!((orphan.job.image_id.0.into(), orphan.job.attempt), (first, 2));
        assert!(app.app.catalog.claim(Due::Orphan).await.unwrap().is_none(), "the others were never claimed");
    }

    async fn a_job_that_is_given_back_has_not_used_an_attempt(app: &TestApp) {
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
