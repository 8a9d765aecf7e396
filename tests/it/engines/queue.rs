//! The contract of the queue on both engines: the database, with and without PostgreSQL's notifications, and RabbitMQ.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use pm::{
    code::ErrorCode,
    domain::{Backlog, InstallationId, JobId},
    queue::{Consumer, DatabaseQueue, Delivery, Engine, Error, NOTIFY_CHANNEL, Next, Queue},
};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use tokio::{sync::watch, time::timeout};

use crate::support::proxy::Proxy;

/// Far longer than anything here takes, so that only a hang exceeds it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A poll interval longer than any test.
const NEVER: Duration = Duration::from_secs(3_600);

// Both engines.

#[tokio::test]
async fn a_hint_reaches_a_worker_that_waits_on_the_database() {
    let (_sender, id) = watch::channel(InstallationId::new(uuid::Uuid::nil()));
    let queue = Queue::connect(&Engine::Database, &sqlite().await.into(), id).await.expect("a queue");
    assert_eq!((queue.name(), queue.needs_relay()), ("database", false));
    a_hint_reaches_a_waiting_worker(&queue).await;
}

#[tokio::test]
async fn a_hint_reaches_a_worker_that_waits_on_rabbitmq() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        assert_eq!((queue.name(), queue.needs_relay()), ("rabbitmq", true));
        a_hint_reaches_a_waiting_worker(&queue).await;
    })
    .await;
}

async fn a_hint_reaches_a_waiting_worker(queue: &Queue) {
    let mut consumer = queue.consume(4);
    queue.publish(&[JobId(7)]).await.expect("published");
    queue.wake();
    match timeout(TIMEOUT, consumer.next()).await.expect("a hint") {
        Next::Due => assert!(!queue.needs_relay(), "with a broker the hint names the job"),
        Next::Job(delivery) => {
            assert_eq!(delivery.job_id, JobId(7));
            delivery.ack().await;
        }
    }
    timeout(TIMEOUT, queue.woken(NEVER)).await.expect("the relay is woken, though it did not wait yet");
    assert!(queue.woken(Duration::from_millis(20)).now_or_never().is_none(), "one wake ends one wait");
    queue.check().await.expect("a queue that can be used");
    queue.publish(&[]).await.expect("nothing to publish");
    consumer.close().await;
    eventually("no message and no consumer", async || queue.backlog().await.expect("a backlog") == Backlog::default())
        .await;
}

// The database.

#[tokio::test]
async fn the_first_wait_on_the_database_returns_at_once() {
    let mut consumer = waiting_at(&sqlite().await, NEVER).consume(1);
    assert!(matches!(consumer.next().now_or_never(), Some(Next::Due)));
    assert!(consumer.next().now_or_never().is_none());
}

#[tokio::test]
async fn one_wake_reaches_every_consumer() {
    let queue = waiting_at(&sqlite().await, NEVER);
    let mut consumers: Vec<Consumer> = (0..10).map(|_| queue.consume(1)).collect();
    for consumer in &mut consumers {
        consumer.next().await;
    }
    let all = stream::iter(consumers.iter_mut()).for_each_concurrent(None, async |consumer| {
        consumer.next().await;
    });
    let (woken, ()) = tokio::join!(timeout(TIMEOUT, all), async { queue.wake() });
    woken.expect("all consumers woken");
}

#[tokio::test]
async fn a_wake_between_two_waits_is_not_lost() {
    let queue = waiting_at(&sqlite().await, NEVER);
    let mut consumer = queue.consume(1);
    consumer.next().await;
    queue.wake();
    assert!(matches!(consumer.next().now_or_never(), Some(Next::Due)));
    assert!(consumer.next().now_or_never().is_none(), "one wake ends one wait");
}

#[tokio::test]
async fn without_a_wake_the_database_is_polled_at_the_interval() {
    let interval = Duration::from_millis(50);
    let queue = waiting_at(&sqlite().await, interval);
    let mut consumer = queue.consume(1);
    consumer.next().await;
    let started = Instant::now();
    timeout(TIMEOUT, consumer.next()).await.expect("a poll");
    assert!(started.elapsed() >= interval - Duration::from_millis(5), "after {:?}", started.elapsed());
}

#[tokio::test]
async fn canceled_waits_do_not_delay_the_poll() {
    let queue = waiting_at(&sqlite().await, Duration::from_millis(100));
    let mut consumer = queue.consume(1);
    consumer.next().await;
    eventually("a poll", async || timeout(Duration::from_millis(10), consumer.next()).await.is_ok()).await;
}

#[tokio::test]
async fn a_consumer_outlives_its_queue_handle() {
    let mut consumer = waiting_at(&sqlite().await, NEVER).consume(1);
    consumer.next().await;
    assert!(consumer.next().now_or_never().is_none(), "no wake without a cause");
}

#[tokio::test]
async fn a_notification_of_postgresql_wakes_consumers_of_other_processes() {
    with_postgres(async |database| {
        let queue = waiting_at(database, NEVER);
        let mut consumer = queue.consume(1);
        settle(&mut consumer).await;
        notify(database).await;
        timeout(TIMEOUT, consumer.next()).await.expect("woken by the notification");
    })
    .await;
}

#[tokio::test]
async fn notifications_resume_after_a_lost_connection() {
    with_postgres(async |database| {
        let queue = waiting_at(database, NEVER);
        let mut consumer = queue.consume(1);
        settle(&mut consumer).await;
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        database.execute_unprepared(ended).await.expect("the listener's connection ended");
        timeout(TIMEOUT, consumer.next()).await.expect("woken for the missed job");
        notify(database).await;
        timeout(TIMEOUT, consumer.next()).await.expect("woken by a notification");
    })
    .await;
}

#[tokio::test]
async fn the_listener_ends_with_the_last_handle() {
    with_postgres(async |database| {
        let queue = waiting_at(database, NEVER);
        let consumer = queue.clone().consume(1);
        listening(database, 1).await;
        drop(queue);
        drop(consumer);
        listening(database, 0).await;
    })
    .await;
}

// RabbitMQ: settling.

#[tokio::test]
async fn published_jobs_are_delivered_once_and_not_after_settling() {
    /// The broker has applied an acknowledgement when it has delivered this many later messages; those that it has not
    /// applied are lost with the connection.
    const PREFETCH: u16 = 50;
    with_broker(async |broker| {
        let queue = broker.queue().await;
        let jobs: Vec<JobId> = (1..=1_000 + i64::from(PREFETCH)).map(JobId).collect();
        queue.publish(&jobs).await.expect("all published");
        let mut consumer = queue.consume(PREFETCH);
        let mut seen = Vec::new();
        while seen.len() < jobs.len() {
            let delivery = job(&mut consumer).await;
            seen.push(delivery.job_id);
            delivery.ack().await;
        }
        seen.sort_unstable();
        assert_eq!(seen, jobs);
        consumer.close().await;

        queue.publish(&[JobId(5_000)]).await.expect("published");
        let mut consumer = queue.consume(PREFETCH);
        loop {
            let delivery = job(&mut consumer).await;
            let id = delivery.job_id;
            delivery.ack().await;
            assert!(id.0 > 1_000, "the settled job {id} was redelivered");
            if id == JobId(5_000) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn unsettled_jobs_are_redelivered_after_their_consumer_is_gone() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        queue.publish(&[JobId(1), JobId(2), JobId(3)]).await.expect("published");
        let mut first = queue.consume(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(job(&mut first).await);
        }
        drop(first);

        let mut second = queue.consume(3);
        let mut again = BTreeSet::new();
        let mut kept = Vec::new();
        for _ in 0..3 {
            let delivery = job(&mut second).await;
            again.insert(delivery.job_id);
            kept.push(delivery);
        }
        assert_eq!(again, BTreeSet::from([JobId(1), JobId(2), JobId(3)]));

        for late in held {
            late.ack().await;
        }
        drop(second);
        drop(kept);
        eventually("the late settling changed nothing", async || broker.backlog().await.0 == 3).await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_or_requeued_job_is_redelivered() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        queue.publish(&[JobId(9)]).await.expect("published");
        let mut consumer = queue.consume(1);
        drop(job(&mut consumer).await);
        job(&mut consumer).await.requeue().await;
        let third = job(&mut consumer).await;
        assert_eq!(third.job_id, JobId(9));
        third.ack().await;
    })
    .await;
}

#[tokio::test]
async fn a_consumer_holds_no_more_than_its_prefetch() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        queue.publish(&(1..=5).map(JobId).collect::<Vec<_>>()).await.expect("published");
        let mut consumer = queue.consume(2);
        let first = job(&mut consumer).await;
        let _second = job(&mut consumer).await;
        assert_eq!(queue.backlog().await.expect("a backlog"), Backlog { ready: 3, consumers: 1 });
        first.ack().await;
        assert_eq!(job(&mut consumer).await.job_id, JobId(3));
    })
    .await;
}

#[tokio::test]
async fn closing_a_consumer_returns_its_jobs() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        queue.publish(&(1..=10).map(JobId).collect::<Vec<_>>()).await.expect("published");
        let mut consumer = queue.consume(10);
        let in_hand = job(&mut consumer).await;
        consumer.close().await;
        eventually("all jobs are back", async || broker.backlog().await == (10, 0)).await;
        in_hand.ack().await;
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_message_is_dead_lettered() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        queue.check().await.expect("a connection");
        let garbage: [&[u8]; 4] = [b"", b"{\"v\":2", b"{\"v\":1,\"job_id\":4}", b"\xff\x00"];
        for payload in garbage {
            broker.send(payload).await;
        }
        queue.publish(&[JobId(4)]).await.expect("published");
        let mut consumer = queue.consume(1);
        let delivery = job(&mut consumer).await;
        assert_eq!(delivery.job_id, JobId(4));
        delivery.ack().await;
        for payload in garbage {
            assert_eq!(broker.set_aside().await, payload);
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_of_another_installation_is_moved_to_its_queue() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        queue.check().await.expect("a connection");
        let owner = InstallationId::new(uuid::Uuid::new_v4());
        let message = format!(r#"{{"v":2,"installation":"{owner}","job_id":4}}"#);
        let mut consumer = queue.consume(1);

        // The owner has no queue at this broker: nothing is lost, and no worker runs the job.
        broker.send(message.as_bytes()).await;
        assert_eq!(broker.set_aside().await, message.as_bytes());

        let engine = Engine::RabbitMq { url: broker.url.clone(), queue: broker.prefix.clone() };
        let (_sender, id) = watch::channel(owner.clone());
        let owners = Queue::connect(&engine, &sqlite().await.into(), id).await.expect("a queue");
        owners.check().await.expect("a connection");
        broker.send(message.as_bytes()).await;
        queue.publish(&[JobId(7)]).await.expect("published");
        let mut owners_consumer = owners.consume(1);
        let delivery = job(&mut owners_consumer).await;
        assert_eq!(delivery.job_id, JobId(4));
        delivery.ack().await;
        let own = job(&mut consumer).await;
        assert_eq!(own.job_id, JobId(7));
        own.ack().await;
        for name in [format!("{}.{owner}", broker.prefix), format!("{}.{owner}.unreadable", broker.prefix)] {
            broker.delete(&name).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_follows_the_installation_s_id() {
    with_broker(async |broker| {
        let engine = Engine::RabbitMq { url: broker.url.clone(), queue: broker.prefix.clone() };
        let (sender, id) = watch::channel(InstallationId::new(uuid::Uuid::new_v4()));
        let before = format!("{}.{}", broker.prefix, *id.borrow());
        let queue = Queue::connect(&engine, &sqlite().await.into(), id).await.expect("a queue");
        let mut consumer = queue.consume(1);
        queue.check().await.expect("a connection");
        sender.send_replace(broker.installation.clone());
        eventually("the new queue has a consumer", async || broker.backlog().await.1 == 1).await;
        eventually("a job is published", async || queue.publish(&[JobId(3)]).await.is_ok()).await;
        job(&mut consumer).await.ack().await;
        for name in [before.clone(), format!("{before}.unreadable")] {
            broker.delete(&name).await;
        }
    })
    .await;
}

// RabbitMQ: faults.

#[tokio::test]
async fn no_job_is_lost_when_connections_are_cut_under_traffic() {
    with_broker(async |broker| {
        let (proxy, queue) = broker.queue_through_proxy().await;
        let mut consumer = queue.consume(16);
        let (mut published, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for round in 0..3_i64 {
            let mut open: Vec<JobId> = (1..=300).map(|number| JobId(round * 1_000 + number)).collect();
            published.extend(open.iter().copied());
            // The cut comes when this round's first job arrives, with others in flight in both directions.
            let consuming = async {
                take(&mut consumer, &mut seen).await;
                proxy.cut();
                broker.deserted().await;
                proxy.restore();
            };
            let publishing = async {
                while !open.is_empty() {
                    match queue.publish(&open).await {
                        Ok(()) => open.clear(),
                        Err(error) => {
                            assert!(error.is_transient());
                            open.retain(|job| !error.confirmed.contains(job));
                        }
                    }
                }
            };
            timeout(TIMEOUT, async { tokio::join!(consuming, publishing) }).await.expect("published in the end");
        }
        while seen != published {
            take(&mut consumer, &mut seen).await;
        }
        assert_eq!(broker.backlog().await.1, 1, "one consumer, after three cuts");
    })
    .await;
}

#[tokio::test]
async fn publishing_fails_fast_during_an_outage_and_works_after_it() {
    with_broker(async |broker| {
        let (proxy, queue) = broker.queue_through_proxy().await;
        queue.publish(&[JobId(1)]).await.expect("published");
        proxy.cut();
        let started = Instant::now();
        eventually("the loss is noticed", async || queue.check().await.is_err()).await;
        let error = queue.publish(&[JobId(2), JobId(3)]).await.expect_err("no broker");
        assert!(started.elapsed() < Duration::from_secs(3 + 2), "{:?}", started.elapsed());
        assert_eq!((error.confirmed.as_slice(), error.code()), (&[][..], ErrorCode::Unavailable));

        let started = Instant::now();
        queue.publish(&[JobId(2)]).await.expect_err("no broker");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let started = Instant::now();
        assert!(queue.check().await.expect_err("not ready").is_transient());
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());

        proxy.restore();
        eventually("published again", async || queue.publish(&[JobId(2)]).await.is_ok()).await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_unavailable_at_the_start_is_used_later() {
    with_broker(async |broker| {
        let proxy = Proxy::start(broker.address.as_str()).await;
        proxy.cut();
        let queue = broker.queue_at(&proxy).await;
        let mut consumer = queue.consume(1);
        queue.publish(&[JobId(1)]).await.expect_err("no broker yet");
        proxy.restore();
        eventually("published", async || queue.publish(&[JobId(1)]).await.is_ok()).await;
        assert_eq!(job(&mut consumer).await.job_id, JobId(1));
    })
    .await;
}

#[tokio::test]
async fn a_silent_broker_is_disconnected_and_reconnected() {
    // One thread runs the whole test, so its metrics are only those of this queue.
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _counting = metrics::set_default_local_recorder(&recorder);
    with_broker(async |broker| {
        let (proxy, queue) = broker.queue_through_proxy().await;
        let (mut consumer, closing) = (queue.consume(1), queue.consume(1));
        eventually("both consume", async || broker.backlog().await.1 == 2).await;
        proxy.stall();
        let started = Instant::now();
        closing.close().await;
        assert!(started.elapsed() < Duration::from_millis(5_500), "closed after {:?}", started.elapsed());
        let error = timeout(TIMEOUT, queue.publish(&[JobId(1)])).await.expect("an answer").expect_err("no broker");
        assert!(error.is_transient() && error.confirmed.is_empty());
        // The consumer sends nothing, so only its own ping shows that the broker is gone.
        for role in ["publisher", "worker"] {
            let disconnected = format!("pm_queue_connected{{role=\"{role}\"}} 0");
            eventually("the silent connection is closed", async || metrics.render().contains(&disconnected)).await;
        }
        assert!(started.elapsed() < Duration::from_secs(25), "closed after {:?}", started.elapsed());
        proxy.restore();
        eventually("published", async || queue.publish(&[JobId(2)]).await.is_ok()).await;
        let mut seen = BTreeSet::new();
        while !seen.contains(&JobId(2)) {
            take(&mut consumer, &mut seen).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        let mut consumer = queue.consume(1);
        eventually("one consumes", async || broker.backlog().await.1 == 1).await;
        broker.delete(&broker.name).await;
        let deleted = Instant::now();
        let error = queue.publish(&[JobId(1), JobId(2)]).await;
        if let Err(error) = error {
            assert!(error.is_transient());
        }
        eventually("published", async || queue.publish(&[JobId(3)]).await.is_ok()).await;
        // Declared sooner, the new queue could keep the old consumer, and its messages with it.
        assert!(deleted.elapsed() > Duration::from_millis(900), "declared again after {:?}", deleted.elapsed());
        let mut seen = BTreeSet::new();
        while !seen.contains(&JobId(3)) {
            take(&mut consumer, &mut seen).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_unroutable_message_is_not_published() {
    with_broker(async |broker| {
        let queue = broker.queue().await;
        queue.check().await.expect("a connection");
        broker.delete(&broker.name).await;
        let error = queue.publish(&[JobId(1), JobId(2)]).await.expect_err("no queue");
        assert_eq!((error.confirmed.as_slice(), error.code()), (&[][..], ErrorCode::Unavailable));
    })
    .await;
}

#[tokio::test]
async fn background_tasks_end_with_the_last_handle() {
    with_broker(async |broker| {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        // After an answer, the direct connection has all its tasks.
        broker.backlog().await;
        let before = tasks();
        let queue = broker.queue().await;
        let consumer = queue.consume(1);
        eventually("one consumes", async || broker.backlog().await.1 == 1).await;
        assert!(tasks() > before);
        drop(queue);
        drop(consumer);
        broker.deserted().await;
        eventually("no task is left", async || tasks() <= before).await;
    })
    .await;
}

#[tokio::test]
async fn an_amqps_url_of_a_broker_without_tls_is_unavailable() {
    with_broker(async |broker| {
        let url = format!("amqps://guest:guest@{}", broker.address);
        let queue = broker.queue_with(&url).await;
        let error = queue.publish(&[JobId(1)]).await.expect_err("no TLS there");
        assert_eq!(error.code(), ErrorCode::Unavailable);
    })
    .await;
}

#[tokio::test]
async fn invalid_queue_settings_are_refused_at_once() {
    let database = sqlite().await;
    let long = "q".repeat(300);
    for (url, queue) in [("http://broker", "q"), ("broker", "q"), ("amqp://broker", ""), ("amqp://broker", &long)] {
        let engine = Engine::RabbitMq { url: url.into(), queue: queue.into() };
        let (_sender, id) = watch::channel(InstallationId::new(uuid::Uuid::nil()));
        let Err(error) = Queue::connect(&engine, &database.clone().into(), id).await else {
            panic!("{url} and {queue:?} are accepted")
        };
        assert!(matches!(error, Error::Config(_)) && !error.is_transient(), "{error}");
        assert_eq!(error.code(), ErrorCode::Internal);
    }
}

// Helpers of the tests.

/// A direct connection to the broker, beside the tested queue.
struct Broker {
    url: String,
    address: String,
    prefix: String,
    installation: InstallationId,
    /// Returns the queue of the installation.
    name: String,
    connection: Connection,
}

/// Runs `test` with its own queue name and deletes the queues afterwards; skipped without a broker.
async fn with_broker(test: impl AsyncFnOnce(&Broker)) {
    let Some(url) = crate::support::rabbitmq_url().await else { return };
    let parsed = url::Url::parse(&url).expect("a URL");
    let address = format!("{}:{}", parsed.host_str().expect("a host"), parsed.port().unwrap_or(5672));
    let plain = url.trim_end_matches('/');
    let connection = Connection::connect(plain, ConnectionProperties::default()).await.expect("a direct connection");
    let prefix = format!("pm.test.{}", uuid::Uuid::new_v4().simple());
    let installation = InstallationId::new(uuid::Uuid::new_v4());
    let name = format!("{prefix}.{installation}");
    let broker = Broker { url, address, prefix, installation, name, connection };
    let outcome = AssertUnwindSafe(test(&broker)).catch_unwind().await;
    for name in [broker.name.clone(), format!("{}.unreadable", broker.name)] {
        broker.delete(&name).await;
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Broker {
    async fn queue(&self) -> Queue {
        self.queue_with(&self.url).await
    }

    async fn queue_through_proxy(&self) -> (Proxy, Queue) {
        let proxy = Proxy::start(self.address.as_str()).await;
        let queue = self.queue_at(&proxy).await;
        (proxy, queue)
    }

    async fn queue_at(&self, proxy: &Proxy) -> Queue {
        let mut url = url::Url::parse(&self.url).expect("a URL");
        let address = proxy.address();
        url.set_host(Some(&address.ip().to_string())).expect("a host");
        url.set_port(Some(address.port())).expect("a port");
        self.queue_with(url.as_str()).await
    }

    async fn queue_with(&self, url: &str) -> Queue {
        let engine = Engine::RabbitMq { url: url.into(), queue: self.prefix.clone() };
        let (_sender, id) = watch::channel(self.installation.clone());
        Queue::connect(&engine, &sqlite().await.into(), id).await.expect("a queue")
    }

    async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    /// Returns the broker's counts of ready messages and consumers; zeros without a queue.
    async fn backlog(&self) -> (u32, u32) {
        let options = QueueDeclareOptions::durable().passive();
        let channel = self.channel().await;
        match channel.queue_declare(self.name.as_str().into(), options, FieldTable::default()).await {
            Ok(queue) => (queue.message_count(), queue.consumer_count()),
            Err(_) => (0, 0),
        }
    }

    /// Waits until the queue has no consumer.
    async fn deserted(&self) {
        eventually("no consumer is left", async || self.backlog().await.1 == 0).await;
    }

    async fn send(&self, payload: &[u8]) {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let channel = self.channel().await;
        channel.basic_publish("".into(), self.name.as_str().into(), options, payload, properties).await.expect("sent");
        // The channel is closed cleanly, so the message is in the queue afterwards.
        channel.close(200, "done".into()).await.expect("closed");
    }

    /// Returns the next dead-lettered message.
    async fn set_aside(&self) -> Vec<u8> {
        let name = format!("{}.unreadable", self.name);
        let channel = self.channel().await;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let options = BasicGetOptions { no_ack: true };
            if let Some(message) = channel.basic_get(name.as_str().into(), options).await.expect("a queue") {
                return message.delivery.data;
            }
            assert!(Instant::now() < deadline, "nothing was set aside");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn delete(&self, name: &str) {
        let deleting = self.channel().await;
        deleting.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }
}

/// Runs `test` with its own PostgreSQL database; skipped without PostgreSQL.
async fn with_postgres(test: impl AsyncFnOnce(&DatabaseConnection)) {
    let Some(url) = crate::support::postgres_url().await else { return };
    let server = Database::connect(&url).await.expect("PostgreSQL");
    let name = format!("pm_test_{}", uuid::Uuid::new_v4().simple());
    server.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a database");
    let mut own = url::Url::parse(&url).expect("a URL");
    own.set_path(&name);
    let database = Database::connect(own.as_str()).await.expect("the new database");
    let outcome = AssertUnwindSafe(test(&database)).catch_unwind().await;
    drop(database);
    server.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.expect("dropped");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn sqlite() -> DatabaseConnection {
    Database::connect("sqlite::memory:").await.expect("SQLite")
}

fn waiting_at(database: &DatabaseConnection, poll_interval: Duration) -> Queue {
    Queue::Database(DatabaseQueue::connect(&database.clone().into(), poll_interval))
}

/// Waits until `count` connections listen for notifications.
async fn listening(database: &DatabaseConnection, count: usize) {
    let listeners = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    eventually("the expected number of listeners", async || {
        let statement = sea_orm::Statement::from_string(database.get_database_backend(), listeners);
        database.query_all_raw(statement).await.expect("the server's connections").len() == count
    })
    .await;
}

async fn notify(database: &DatabaseConnection) {
    database.execute_unprepared(&format!("NOTIFY {NOTIFY_CHANNEL}")).await.expect("notified");
}

/// Consumes the initial hints: the first wait, and the wake when listening starts.
async fn settle(consumer: &mut Consumer) {
    assert!(consumer.next().now_or_never().is_some(), "before anything else can run");
    timeout(TIMEOUT, consumer.next()).await.expect("woken as listening began");
}

/// Returns the next job.
async fn job(consumer: &mut Consumer) -> Delivery {
    match timeout(TIMEOUT, consumer.next()).await.expect("a job") {
        Next::Job(delivery) => delivery,
        Next::Due => panic!("RabbitMQ names the job"),
    }
}

/// Takes the next job, settles it and records it.
async fn take(consumer: &mut Consumer, seen: &mut BTreeSet<JobId>) {
    let delivery = job(consumer).await;
    seen.insert(delivery.job_id);
    delivery.ack().await;
}

/// Polls, where there is no signal to wait for.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(Instant::now() < deadline, "not reached within {TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
