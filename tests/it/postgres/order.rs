//! Events have one order, whatever transactions are open on the server, in the database, or in `pm`.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pm::{
    db::{Database, Postgres, events},
    domain::EventPosition,
};
use sea_orm::{ConnectionTrait as _, Statement};

use super::{connect, with_database};
use crate::{
    events::Listener,
    support::{Setup, app},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_transactions_of_other_clients_do_not_delay_events() {
    with_database(async |elsewhere| {
        app::run(Setup::Full, async |app| {
            app.sql("CREATE TABLE notes (text TEXT)").await;
            let (elsewhere, beside) = (connect(Postgres::new(elsewhere)).await, app.app.database.clone());
            let mut all = Listener::open(app, "/events").await;
            let other_database = elsewhere.begin().await.unwrap();
            other_database.execute_unprepared("CREATE TABLE theirs (number BIGINT)").await.unwrap();
            let other_table = beside.begin().await.unwrap();
            other_table.execute_unprepared("INSERT INTO notes VALUES ('open')").await.unwrap();
            let number_alone = beside.begin().await.unwrap();
            number_alone.execute_unprepared("SELECT pg_current_xact_id()").await.unwrap();

            let product = app.create(&[]).await;
            let answered = Instant::now();
            let event = tokio::time::timeout(Duration::from_secs(20), all.next()).await.expect("held back").unwrap();
            println!("arrived {:?} after the answer", answered.elapsed());
            assert_eq!(event.data["product_id"], product["id"]);

            // New clients start at the present, and reconnecting ones miss nothing.
            let mut joined = Listener::open(app, "/events").await;
            let mut back = Listener::after(app, "/events", Some(&event.id)).await;
            let next = app.create(&[]).await;
            for listener in [&mut all, &mut joined, &mut back] {
                assert_eq!(listener.next().await.unwrap().data["product_id"], next["id"]);
            }
            for open in [other_database, other_table, number_alone] {
                open.rollback().await.unwrap();
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn every_table_of_the_schema_counts_as_written_by_pm() {
    with_database(async |url| {
        let database = connect(Postgres::new(url)).await;
        pm::db::migrate::up(&database, None).await.unwrap();
        let sql = "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = current_schema()";
        let statement = Statement::from_string(sea_orm::DbBackend::Postgres, sql);
        let rows = database.read().query_all_raw(statement).await.unwrap();
        let tables: BTreeSet<String> = rows.iter().map(|row| row.try_get("", "name").unwrap()).collect();
        let known = events::TABLES.into_iter().chain(["seaql_migrations"]).map(str::to_owned).collect();
        assert_eq!(tables, known, "db::events::TABLES names every table that a transaction of pm may write to first");
    })
    .await;
}

/// Writes an event as every change does: another table first, the commit a moment later; one in eight is rolled back.
/// Its many locks are released one by one, so that readers often see the list of locks meanwhile.
async fn write(database: &Database, number: usize) {
    let write = database.begin().await.unwrap();
    let locks = format!("SELECT pg_advisory_xact_lock({number}, lock) FROM generate_series(1, 40) AS lock");
    write.execute_unprepared(&locks).await.unwrap();
    let user = format!("INSERT INTO users (id, created_at) VALUES ('u{number}', 1)");
    write.execute_unprepared(&user).await.unwrap();
    tokio::time::sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
    let event = format!(
        "INSERT INTO events (product_id, user_id, kind, data, created_at)
         VALUES ({number}, 'u', 'product.updated', '{{}}', 1)"
    );
    write.execute_unprepared(&event).await.unwrap();
    tokio::time::sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
    if number.is_multiple_of(8) { write.rollback().await.unwrap() } else { write.commit().await.unwrap() }
}

/// Reads until `done`, and then the rest.
async fn read(database: &Database, done: &AtomicBool) -> Vec<EventPosition> {
    let (mut seen, mut after) = (Vec::new(), EventPosition::START);
    loop {
        let is_over = done.load(Ordering::SeqCst);
        let page = events::page(&database.read(), after, 64).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.position));
        after = page.last;
        if is_over && !page.full && !page.held_back {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_misses_repeats_or_reorders_an_event_of_many_writers() {
    const WRITERS: usize = 12;
    const EACH: usize = 60;
    with_database(async |url| {
        let database = connect(Postgres { max_connections: 24, ..Postgres::new(url) }).await;
        pm::db::migrate::up(&database, None).await.unwrap();
        database.read().execute_unprepared("CREATE TABLE notes (text TEXT)").await.unwrap();
        let done = AtomicBool::new(false);
        let writers = join_all((0..WRITERS).map(|writer| {
            let database = &database;
            async move {
                for number in 0..EACH {
                    write(database, writer * EACH + number).await;
                }
            }
        }));
        let others = async {
            while !done.load(Ordering::SeqCst) {
                let other = database.begin().await.unwrap();
                other.execute_unprepared("INSERT INTO notes VALUES ('open')").await.unwrap();
                tokio::time::sleep(Duration::from_millis(fastrand::u64(..40))).await;
                other.commit().await.unwrap();
            }
        };
        let all = async {
            writers.await;
            done.store(true, Ordering::SeqCst);
        };
        let (first, second, (), ()) = tokio::join!(read(&database, &done), read(&database, &done), others, all);
        assert!(first.windows(2).all(|two| two[0] < two[1]), "in order and once");
        assert_eq!(first.len(), WRITERS * EACH * 7 / 8, "none is missing");
        assert_eq!(first, second, "the same for every reader");
    })
    .await;
}
