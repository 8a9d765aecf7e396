//! Random faults of all engines while products are created, read and processed: no acknowledged write is lost, and
//! every response is correct or retryable.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{Proxies, behind_proxies, eventually, readiness, try_again};
use crate::support::{Origin, TestApp, images, proxy::Proxy};

/// Injects `rounds` short faults, and restores everything.
async fn trouble(proxies: &Proxies, seed: u64, rounds: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let all = [&proxies.database, &proxies.redis, &proxies.rabbitmq];
    for _ in 0..rounds {
        let proxy: &Proxy = all[random.usize(..all.len())];
        match random.u8(..4) {
            0 | 1 => proxy.cut(),
            2 => proxy.stall(),
            _ => proxy.restore(),
        }
        tokio::time::sleep(Duration::from_millis(random.u64(20..400))).await;
        if random.bool() {
            all[random.usize(..all.len())].restore();
        }
    }
    all.into_iter().for_each(Proxy::restore);
}

/// Creates products and reads them again until `over`; returns the acknowledged ones.
async fn make_products(app: &TestApp, image: &str, seller: usize, over: &AtomicBool) -> Vec<Value> {
    let mut acknowledged: Vec<Value> = Vec::new();
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let name = format!("{seller}/{number}");
        let body = json!({
            "user_id": "seller", "product_name": name, "product_price": number, "product_images": [image],
        });
        let response = app.post("/products", &body).await;
        if response.status() == 201 {
            acknowledged.push(response.json().await.unwrap());
        } else {
            try_again(response).await;
        }
        if let Some(made) = acknowledged.last() {
            let response = app.get(&format!("/products/{}", made["id"])).await;
            if response.status() == 200 {
                let read: Value = response.json().await.unwrap();
                assert_eq!(read["product_name"], made["product_name"]);
            } else {
                try_again(response).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    acknowledged
}

async fn survives(seed: u64) {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(24, 16));
        let image = origin.url("/a.png");
        let (stopper, worker) = app.start_worker().await;
        let (over, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let sellers = futures_util::future::join_all((0..4).map(async |seller| {
            let made = make_products(app, &image, seller, &over).await;
            acknowledged.lock().unwrap().extend(made);
        }));
        let faults = async {
            trouble(proxies, seed, 24).await;
            over.store(true, Ordering::SeqCst);
        };
        tokio::join!(sellers, faults);
        let acknowledged = acknowledged.into_inner().unwrap();
        assert!(acknowledged.len() > 3, "with only {} products nothing is shown", acknowledged.len());
        eventually("everything up", async || readiness(app).await.1.is_empty().then_some(())).await;
        // Backoffs would take seconds otherwise.
        app.let_time_pass().await;
        for made in &acknowledged {
            let product = app.settled(&made["id"]).await;
            assert_eq!(
                (&product["product_name"], &product["status"]),
                (&made["product_name"], &json!("ready")),
                "{product}"
            );
        }
        eventually("a cache that matches the database", async || {
            let mut same = true;
            for made in acknowledged.iter().take(100) {
                let id = made["id"].as_i64().unwrap();
                let stored = app.app.catalog.product(pm::domain::ProductId(id)).await.unwrap();
                same &= app.product(&made["id"]).await["version"] == stored.version;
            }
            same.then_some(())
        })
        .await;
        let depth = app.app.catalog.depth().await.unwrap();
        assert_eq!((depth.queued, depth.running, depth.dead), (0, 0, 0), "no job is left behind");
        stopper.cancel();
        worker.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_all_engines_lose_nothing_that_was_acknowledged() {
    // In parallel, since both mostly wait.
    tokio::join!(survives(20_260_131), survives(7));
}
