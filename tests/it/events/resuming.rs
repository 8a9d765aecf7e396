//! No event is missed or repeated: with clients that reconnect, slow clients, and concurrent writers.

use sea_orm::ConnectionTrait as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Listener, in_order, write_events};
use crate::support::{Setup, TestApp, app, on_both_setups};

async fn count(app: &TestApp) -> i64 {
    let connection = app.app.database.read();
    let sql = "SELECT count(*) AS counted FROM events";
    let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get("", "counted").unwrap()
}

on_both_setups! {
    async fn a_reconnecting_client_gets_missed_events_from_any_process(app: &TestApp) {
        let mut first = Listener::open(app, "/events").await;
        app.create(&[]).await;
        let seen = first.next().await.unwrap();
        drop(first);
        let missed = [app.create(&[]).await["id"].clone(), app.create(&[]).await["id"].clone()];

        let another = app.another().await;
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events?last_event_id=0-0", socket.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let server = tokio::spawn(async move { Box::pin(another.serve(socket, 0, stop)).await.unwrap() });
        let mut again = Listener::at(&app.client, &url, "/events", Some(&seen.id)).await;
        let received = again.some(2).await;
        assert_eq!(received.iter().map(|received| &received.data["product_id"]).collect::<Vec<_>>(), missed.iter().collect::<Vec<_>>());
        let live = app.create(&[]).await;
        assert_eq!(again.next().await.unwrap().data["product_id"], live["id"]);
        let mut from_the_start = Listener::at(&app.client, &url, "/events", None).await;
        assert_eq!(from_the_start.some(4).await[0], seen);
        stopper.cancel();
        server.await.unwrap();
    }

    async fn a_client_disconnected_before_the_first_event_can_resume(app: &TestApp) {
        app.create(&[]).await;
        let mut first = Listener::open(app, "/events?types=product.deleted").await;
        let chunk = first.response.chunk().await.unwrap().unwrap();
        first.read(std::str::from_utf8(&chunk).unwrap());
        let missed = app.create(&[]).await;

        let mut again = Listener::after(app, "/events", Some(&first.last_id)).await;
        assert_eq!(again.next_of(&missed["id"]).await.name, "product.created");
    }

    async fn a_client_that_resumes_too_late_gets_a_reset_event(app: &TestApp) {
        let mut first = Listener::open(app, "/events").await;
        app.create(&[]).await;
        let seen = first.next().await.unwrap().id;
        write_events(app, 1_200, 1, 0).await;
        // Young events are kept, and everything after the oldest of them.
        write_events(app, 700, pm::clock::Timestamp::now().0, 0).await;
        let newest = app.create(&[]).await["id"].clone();
        // The server has read all of them.
        first.next_of(&newest).await;
        while app.app.catalog.delete_expired_events().await.unwrap() > 0 {}
        let kept = count(app).await;
        assert!((700..1_200).contains(&kept), "{kept} are kept");

        for unknown in [seen.as_str(), "0-0", "invalid", "9223372036854775807-9223372036854775807"] {
            let mut again = Listener::after(app, "/events", Some(unknown)).await;
            let received = again.next().await.unwrap();
            assert_eq!(received.name, "reset", "{unknown}");
            let live = app.create(&[]).await["id"].clone();
            let created = again.next_of(&live).await;
            let mut known = Listener::after(app, "/events", Some(&received.id)).await;
            assert_eq!(known.next_of(&live).await, created, "{unknown}");
        }
    }

    async fn concurrent_writers_lose_and_reorder_no_event(app: &TestApp) {
        const WRITERS: usize = 8;
        const EACH: usize = 20;
        let mut before = Listener::open(app, "/events").await;
        let write = async || {
            for _ in 0..EACH {
                let id = app.create(&[]).await["id"].clone();
                assert_eq!(app.client.delete(app.url(&format!("/products/{id}"))).send().await.unwrap().status(), 204);
            }
        };
        let writers = futures_util::future::join_all((0..WRITERS).map(|_| write()));
        let read = async {
            let mut received = before.some(WRITERS * EACH).await;
            // One client disconnects and reconnects meanwhile.
            let last = received.last().unwrap().id.clone();
            let mut again = Listener::after(app, "/events", Some(&last)).await;
            received.extend(again.some(WRITERS * EACH).await);
            received
        };
        let (received, _) = tokio::join!(read, writers);

        assert!(in_order(&received));
        let mut all = Listener::after(app, "/events", Some("0-0")).await;
        assert_eq!(all.some(2 * WRITERS * EACH).await, received);
        for deletion in received.iter().filter(|received| received.name == "product.deleted") {
            let about: Vec<_> = received.iter().filter(|received| received.data["product_id"] == deletion.data["product_id"]).collect();
            assert_eq!(about.len(), 2);
            assert_eq!(about[0].name, "product.created");
        }
    }

    async fn a_slow_client_gets_all_events_in_order(app: &TestApp) {
        const EVENTS: usize = 20_000;
        let mut late = Listener::open(app, "/events").await;
        let mut prompt = Listener::open(app, "/events").await;
        write_events(app, EVENTS as u32, pm::clock::Timestamp::now().0, 1_000).await;
        // The slow client reads nothing while the other one gets everything.
        assert!(in_order(&prompt.some(EVENTS).await));

        let received = late.some(EVENTS).await;
        assert!(in_order(&received));
        let live = app.create(&[]).await;
        assert_eq!(late.next().await.unwrap().data["product_id"], live["id"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_waits_for_earlier_transactions() {
    app::run(Setup::Full, async |app| {
        let mut all = Listener::open(app, "/events").await;
        let slow = app.app.database.begin().await.unwrap();
        let insert = "INSERT INTO events (product_id, user_id, kind, data, created_at)
            VALUES (99, 'slow', 'product.updated', '{\"product_id\":99}', 1)";
        slow.execute_unprepared(insert).await.unwrap();
        let quick = app.create(&[]).await;
        // The later transaction is committed and visible; the earlier one's position is still empty.
        assert_eq!(app.app.catalog.newest_event().await.unwrap(), pm::domain::EventPosition::START);
        slow.commit().await.unwrap();

        let received = all.some(2).await;
        assert_eq!(received[0].data["product_id"], 99);
        assert_eq!(received[1].data["product_id"], quick["id"]);
    })
    .await;
}
