//! The content of streams, their filters, and their end.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Listener, in_order};
use crate::support::{Origin, images, on_both_setups};

on_both_setups! {
    async fn a_products_changes_are_streamed_as_they_happen(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(300, 200));
        let mut all = Listener::open(app, "/events").await;
        assert_eq!(all.response.headers()["content-type"], "text/event-stream");
        assert_eq!(all.response.headers()["cache-control"], "no-store");
        assert_eq!(all.response.headers()["x-accel-buffering"], "no");

        let product = app.create(&[origin.url("/a.jpg")]).await;
        app.drain().await;
        let (id, image) = (&product["id"], &product["images"][0]["id"]);
        assert_eq!(app.client.delete(app.url(&format!("/products/{id}"))).send().await.unwrap().status(), 204);

        let received = all.some(4).await;
        let names: Vec<_> = received.iter().map(|received| received.name.as_str()).collect();
        assert_eq!(names, ["product.created", "image.processing", "image.ready", "product.deleted"]);
        let seller = |more: serde_json::Value| {
            let mut data = json!({"product_id": id, "user_id": "seller"});
            data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            data
        };
        assert_eq!(received[0].data, seller(json!({"version": 1, "status": "processing"})));
        assert_eq!(received[1].data, seller(json!({"image_id": image, "version": 2, "status": "processing"})));
        assert_eq!(received[2].data, seller(json!({"image_id": image, "version": 3, "status": "ready"})));
        assert_eq!(received[3].data, seller(json!({})));
        assert!(in_order(&received), "{received:?}");
    }

    async fn a_failed_image_is_an_event_only_when_final(app: &TestApp) {
        let origin = Origin::start().await;
        let mut all = Listener::open(app, "/events").await;
        app.create(&[origin.url("/status/503")]).await;
        app.drain().await;
        assert_eq!(all.names(3).await, ["product.created", "image.processing", "product.updated"]);
        let received = loop {
            app.let_time_pass().await;
            app.drain().await;
            let received = all.some(2).await;
            assert_eq!(received[0].name, "image.processing");
            if received[1].name != "product.updated" {
                break received[1].clone();
            }
        };
        assert_eq!(received.name, "image.failed");
        assert_eq!(received.data["status"], "failed");
        assert_eq!(received.data["error_code"], "source_unavailable");
    }

    async fn a_products_stream_has_only_its_events_and_ends_with_it(app: &TestApp) {
        let (one, other) = (app.create(&[]).await["id"].clone(), app.create(&[]).await["id"].clone());
        let mut own = Listener::open(app, &format!("/products/{one}/events")).await;
        let mut deletions = Listener::open(app, &format!("/events?product_id={one}&types=product.deleted")).await;
        for id in [other, one.clone()] {
            assert_eq!(app.client.delete(app.url(&format!("/products/{id}"))).send().await.unwrap().status(), 204);
        }

        for stream in [&mut own, &mut deletions] {
            let received = stream.rest().await;
            assert_eq!(received.last().unwrap().name, "product.deleted");
            assert!(received.iter().all(|received| received.data["product_id"] == one), "{received:?}");
        }
        assert_eq!(app.get(&format!("/products/{one}/events")).await.status(), 404);
    }

    async fn a_stream_is_filtered_by_user_and_type(app: &TestApp) {
        let mut hers = Listener::open(app, "/events?user_id=her&types=product.created,product.deleted").await;
        for user in ["him", "her"] {
            let body = json!({"user_id": user, "product_name": "A", "product_price": 1});
            assert_eq!(app.post("/products", &body).await.status(), 201);
        }
        assert_eq!(hers.next().await.unwrap().data["user_id"], "her");

        let wrong = app.get("/events?types=product.sold&last_event_id=7&page=1").await;
        assert_eq!(wrong.status(), 422);
        let problem: serde_json::Value = wrong.json().await.unwrap();
        assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
        assert_eq!(app.get("/products/none/events").await.status(), 404);
        let head = app.client.head(app.url("/events")).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.headers()["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    }

    async fn events_of_other_processes_are_streamed(app: &TestApp) {
        let mut all = Listener::open(app, "/events").await;
        let another = app.another().await;
        let body = br#"{"user_id":"seller","product_name":"A","product_price":1}"#;
        let new = pm::domain::NewProduct::from_json(body, another.catalog.policy()).unwrap();
        let product = another.catalog.create(new.unwrap(), None).await.unwrap();

        assert_eq!(all.next().await.unwrap().data["product_id"], product.id.0);
    }

    async fn streams_end_at_once_when_the_server_stops(app: &TestApp) {
        let another = app.another().await;
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", socket.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let server = tokio::spawn(async move { Box::pin(another.serve(socket, 0, stop)).await.unwrap() });
        let mut all = Listener::at(&app.client, &url, "/events", None).await;

        let stopped = Instant::now();
        stopper.cancel();
        assert_eq!(all.next().await, None);
        server.await.unwrap();
        assert!(stopped.elapsed() < Duration::from_secs(5), "it took {:?}", stopped.elapsed());
    }
}
