//! The contract of every cache engine, then tests of single engines.

mod model;
mod outages;

use std::time::{Duration, Instant};

use bytes::Bytes;
use pm::{
    cache::{BodyShape, Cache, Engine, Entry, Error, Fill, Lifetimes, Lookup, MemoryCache, RedisCache},
    code::ErrorCode,
    domain::ProductId,
};

use self::model::no_reader_sees_less_than_was_acknowledged;

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_the_contract() {
    let Some(url) = crate::support::redis_url().await else { return };
    let cache = redis_cache(&url, Lifetimes::default()).await;
    let short_leases = redis_cache(&url, short_leases()).await;
    let short_absences = redis_cache(&url, short_absences()).await;
    keeps_the_contract(&cache, &short_leases, &short_absences).await;
    let prefix = own_prefix();
    let processes = [process(&url, &prefix).await, process(&url, &prefix).await];
    no_reader_sees_less_than_was_acknowledged(&processes, None, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    let database = Database::new();
    let cache = database.cache(Lifetimes::default());
    keeps_the_contract(&cache, &database.cache(short_leases()), &database.cache(short_absences())).await;
    let processes = [cache, database.cache(Lifetimes::default())];
    no_reader_sees_less_than_was_acknowledged(&processes, Some(database.connection), None).await;
}

async fn keeps_the_contract(cache: &Cache, short_leases: &Cache, short_absences: &Cache) {
    cache.check().await.expect("a working engine");
    a_value_that_was_filled_is_read(cache).await;
    an_invalidation_between_lookup_and_fill_wins(cache).await;
    a_second_lookup_gets_no_permit(cache).await;
    a_permit_is_good_for_its_product_alone(cache).await;
    an_absent_entry_is_dropped_by_an_invalidation(cache).await;
    many_products_are_invalidated_at_once(cache).await;
    a_lease_ends_by_itself_and_with_it_its_permit(short_leases).await;
    the_value_outlives_its_lease(short_leases).await;
    an_absence_is_soon_forgotten(short_absences).await;
}

async fn a_value_that_was_filled_is_read(cache: &Cache) {
    for (id, body) in [(1, "{\"id\":1}".into()), (2, String::new()), (3, "x".repeat(1 << 20))] {
        let entry = Entry::Value(Bytes::from(body));
        put(cache, ProductId(id), entry.clone()).await;
        assert_eq!(read(cache, ProductId(id)).await, entry);
        let found = eventually(async || match cache.lookup(ProductId(id)).await {
            Lookup::Hit(found) => Some(found),
            Lookup::Miss(_) => None,
        });
        assert_eq!(found.await, entry);
    }
}

async fn an_invalidation_between_lookup_and_fill_wins(cache: &Cache) {
    let id = ProductId(10);
    let outdated = permit(cache, id).await;
    invalidate(cache, id).await;
    cache.fill(outdated, id, value(1)).await;
    assert_eq!(cache.get(id).await, None);

    let outdated = permit(cache, id).await;
    invalidate(cache, id).await;
    let current = permit(cache, id).await;
    cache.fill(outdated, id, value(1)).await;
    cache.fill(current, id, value(2)).await;
    assert_eq!(read(cache, id).await, value(2));
}

async fn a_second_lookup_gets_no_permit(cache: &Cache) {
    let id = ProductId(20);
    let first = permit(cache, id).await;
    let Lookup::Miss(second) = cache.lookup(id).await else { panic!("nothing was stored") };
    assert!(!second.is_permit());
    cache.fill(second, id, value(2)).await;
    assert_eq!(cache.get(id).await, None);
    cache.fill(first, id, value(1)).await;
    assert_eq!(read(cache, id).await, value(1));
}

async fn a_permit_is_good_for_its_product_alone(cache: &Cache) {
    let fill = permit(cache, ProductId(25)).await;
    permit(cache, ProductId(26)).await;
    cache.fill(fill, ProductId(26), value(25)).await;
    assert_eq!(cache.get(ProductId(26)).await, None);
}

async fn an_absent_entry_is_dropped_by_an_invalidation(cache: &Cache) {
    let id = ProductId(30);
    put(cache, id, Entry::Absent).await;
    assert_eq!(read(cache, id).await, Entry::Absent);
    invalidate(cache, id).await;
    assert_eq!(cache.get(id).await, None);
    assert!(permit(cache, id).await.is_permit());
}

async fn many_products_are_invalidated_at_once(cache: &Cache) {
    let ids: Vec<_> = (1_000..2_200).map(ProductId).collect();
    put(cache, ids[0], value(0)).await;
    put(cache, ids[1_199], value(0)).await;
    eventually(async || cache.invalidate(&ids).await.ok()).await;
    assert_eq!((cache.get(ids[0]).await, cache.get(ids[1_199]).await), (None, None));
}

async fn a_lease_ends_by_itself_and_with_it_its_permit(cache: &Cache) {
    let id = ProductId(40);
    let late = permit(cache, id).await;
    // The lease is not released, so a second permit is given only because the first has expired.
    permit(cache, id).await;
    cache.fill(late, id, value(1)).await;
    assert_eq!(cache.get(id).await, None);
}

async fn the_value_outlives_its_lease(cache: &Cache) {
    let (id, other) = (ProductId(50), ProductId(51));
    permit(cache, other).await;
    put(cache, id, value(1)).await;
    // This lease was given first and ends first; the second one is given after its end.
    permit(cache, other).await;
    permit(cache, other).await;
    assert_eq!(read(cache, id).await, value(1));
}

async fn an_absence_is_soon_forgotten(cache: &Cache) {
    let id = ProductId(60);
    let fill = permit(cache, id).await;
    cache.fill(fill, id, Entry::Absent).await;
    assert!(permit(cache, id).await.is_permit());
}

// In Redis, beside processes with another shape.

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_shape_is_replaced_and_never_read() {
    let Some(url) = crate::support::redis_url().await else { return };
    let (prefix, id) = (own_prefix(), ProductId(1));
    let (one, two) = (process_of_shape(&url, &prefix, "one").await, process_of_shape(&url, &prefix, "two").await);
    put(&one, id, value(1)).await;
    assert_eq!(two.get(id).await, None);
    let fill = permit(&two, id).await;
    assert_eq!(one.get(id).await, None);
    let Lookup::Miss(none) = one.lookup(id).await else { panic!("the lease replaced the body") };
    assert!(!none.is_permit());
    two.fill(fill, id, value(2)).await;
    assert_eq!(read(&two, id).await, value(2));
    assert_eq!(one.get(id).await, None);

    // A change reaches entries and permits of every shape.
    invalidate(&one, id).await;
    assert_eq!(two.get(id).await, None);
    let outdated = permit(&two, id).await;
    invalidate(&one, id).await;
    two.fill(outdated, id, value(2)).await;
    assert_eq!(two.get(id).await, None);

    put(&one, id, Entry::Absent).await;
    assert_eq!(read(&two, id).await, Entry::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_of_two_shapes_sees_less_than_was_acknowledged() {
    let Some(url) = crate::support::redis_url().await else { return };
    let prefix = own_prefix();
    let processes = [process_of_shape(&url, &prefix, "one").await, process_of_shape(&url, &prefix, "two").await];
    no_reader_sees_less_than_was_acknowledged(&processes, None, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_stored_without_a_shape_is_replaced() {
    let Some(url) = crate::support::redis_url().await else { return };
    let (prefix, id) = (own_prefix(), ProductId(1));
    let cache = process(&url, &prefix).await;
    put(&cache, id, value(1)).await;
    let mut client = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}:*")).query_async(&mut client).await.unwrap();
    let [key] = &keys[..] else { panic!("one key: {keys:?}") };
    redis::cmd("SET").arg(key).arg("V{}").query_async::<()>(&mut client).await.unwrap();
    assert_eq!(cache.get(id).await, None);
    put(&cache, id, value(2)).await;
    assert_eq!(read(&cache, id).await, value(2));
}

// Without an engine.

#[tokio::test]
async fn a_disabled_cache_misses_always_and_never_fails() {
    let cache = Cache::connect(&Engine::Off).await.expect("nothing to set up");
    let Lookup::Miss(fill) = cache.lookup(ProductId(1)).await else { panic!("nothing can be there") };
    assert!(!fill.is_permit());
    cache.fill(fill, ProductId(1), value(1)).await;
    assert_eq!(cache.get(ProductId(1)).await, None);
    cache.invalidate(&[ProductId(1)]).await.expect("nothing to forget");
    cache.check().await.expect("nothing to be unavailable");
}

// In memory, beside other processes.

#[tokio::test]
async fn a_commit_of_another_process_invalidates_the_entry() {
    let database = Database::new();
    let cache = database.cache(Lifetimes::default());
    put(&cache, ProductId(1), value(1)).await;
    put(&cache, ProductId(2), value(1)).await;
    database.another_process_changes(&[ProductId(1)]);
    assert_eq!(cache.get(ProductId(1)).await, None);
    assert_eq!(cache.get(ProductId(2)).await, Some(value(1)));
}

#[tokio::test]
async fn no_entry_outlives_an_emptied_catalog() {
    let database = Database::new();
    database.another_process_changes(&[ProductId(1)]);
    let cache = database.cache(Lifetimes::default());
    put(&cache, ProductId(1), value(1)).await;
    database.another_process_empties_the_catalog();
    // The log has as many rows as before.
    database.another_process_changes(&[ProductId(2)]);
    assert_eq!(cache.get(ProductId(1)).await, None);
}

#[tokio::test]
async fn a_fill_permit_ends_with_another_processs_commit() {
    let database = Database::new();
    let cache = database.cache(Lifetimes::default());
    let outdated = permit(&cache, ProductId(1)).await;
    let untouched = permit(&cache, ProductId(2)).await;
    database.another_process_changes(&[ProductId(1)]);
    cache.fill(outdated, ProductId(1), value(1)).await;
    cache.fill(untouched, ProductId(2), value(2)).await;
    assert_eq!(cache.get(ProductId(1)).await, None);
    assert_eq!(cache.get(ProductId(2)).await, Some(value(2)));

    // Nor does it if another reader looks in between.
    let outdated = permit(&cache, ProductId(1)).await;
    database.another_process_changes(&[ProductId(1)]);
    let current = permit(&cache, ProductId(1)).await;
    cache.fill(outdated, ProductId(1), value(1)).await;
    cache.fill(current, ProductId(1), value(3)).await;
    assert_eq!(cache.get(ProductId(1)).await, Some(value(3)));
}

#[tokio::test]
async fn a_log_with_gaps_drops_everything_and_every_permit() {
    let database = Database::new();
    let cache = database.cache(Lifetimes::default());
    put(&cache, ProductId(1), value(1)).await;
    let outdated = permit(&cache, ProductId(2)).await;
    database.another_process_changes(&[ProductId(7)]);
    database.another_process_forgets_its_log();
    cache.fill(outdated, ProductId(2), value(2)).await;
    assert_eq!((cache.get(ProductId(1)).await, cache.get(ProductId(2)).await), (None, None));
    put(&cache, ProductId(2), value(3)).await;
    assert_eq!(cache.get(ProductId(2)).await, Some(value(3)));
}

#[tokio::test]
async fn an_unreadable_database_drops_everything() {
    let database = Database::new();
    let cache = database.cache(Lifetimes::default());
    put(&cache, ProductId(1), value(1)).await;
    database.connection.execute_batch("ALTER TABLE cache_invalidation RENAME TO elsewhere").expect("a rename");
    database.connection.execute_batch("DELETE FROM sqlite_sequence; DROP TABLE elsewhere").expect("a drop");
    database.connection.execute_batch("CREATE TABLE cache_invalidation (other TEXT)").expect("a table");
    database.connection.execute("INSERT INTO sqlite_sequence VALUES ('cache_invalidation', 9)", []).expect("a row");
    assert_eq!(cache.get(ProductId(1)).await, None);
    assert!(cache.check().await.is_err_and(|error| error.is_transient()));
    let Lookup::Miss(fill) = cache.lookup(ProductId(1)).await else { panic!("everything was dropped") };
    assert!(!fill.is_permit());
}

#[tokio::test]
async fn the_memory_cache_stays_within_its_byte_limit() {
    let database = Database::new();
    let cache = MemoryCache::open(1 << 20, &database.path(), Lifetimes::default()).expect("a database with a schema");
    let cache = Cache::Memory(cache);
    let body = Bytes::from(vec![b'x'; 100 << 10]);
    for id in 0..200 {
        if let Lookup::Miss(fill) = cache.lookup(ProductId(id)).await {
            cache.fill(fill, ProductId(id), Entry::Value(body.clone())).await;
        }
    }
    eventually(async || {
        let mut kept = 0;
        for id in 0..200 {
            kept += usize::from(cache.get(ProductId(id)).await.is_some());
        }
        (1..=10).contains(&kept).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_memory_cache_without_its_database_file_is_unavailable() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::Memory {
        max_bytes: 1 << 20,
        database: directory.path().join("none.db"),
        lifetimes: Lifetimes::default(),
    };
    let error = Cache::connect(&engine).await.expect_err("no such file");
    assert!(matches!(error, Error::Unavailable(_)) && error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_memory_cache_with_an_unreadable_database_file_is_unavailable() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine =
        Engine::Memory { max_bytes: 1 << 20, database: directory.path().to_owned(), lifetimes: Lifetimes::default() };
    let error = Cache::connect(&engine).await.expect_err("a directory is no database");
    assert_eq!((error.code(), error.is_transient()), (ErrorCode::Unavailable, true));
}

// Helpers of the tests.

fn value(version: u64) -> Entry {
    Entry::Value(Bytes::copy_from_slice(&version.to_be_bytes()))
}

/// Retries until there is an answer: on a busy machine any operation may exceed its time limit.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {TIMEOUT:?} in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn permit(cache: &Cache, id: ProductId) -> Fill {
    eventually(async || match cache.lookup(id).await {
        Lookup::Miss(fill) if fill.is_permit() => Some(fill),
        _ => None,
    })
    .await
}

async fn read(cache: &Cache, id: ProductId) -> Entry {
    eventually(async || cache.get(id).await).await
}

async fn put(cache: &Cache, id: ProductId, entry: Entry) {
    eventually(async || {
        if let Lookup::Miss(fill) = cache.lookup(id).await {
            cache.fill(fill, id, entry.clone()).await;
        }
        (cache.get(id).await.as_ref() == Some(&entry)).then_some(())
    })
    .await;
}

async fn invalidate(cache: &Cache, id: ProductId) {
    eventually(async || cache.invalidate(&[id]).await.ok()).await;
}

fn short_leases() -> Lifetimes {
    Lifetimes { lease: Duration::from_millis(150), ..Lifetimes::default() }
}

fn short_absences() -> Lifetimes {
    Lifetimes { absent: Duration::from_millis(100), ..Lifetimes::default() }
}

fn unique() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

fn own_prefix() -> String {
    format!("pm-test-{:016x}", unique())
}

/// Opens the cache as one of several processes.
async fn process(url: &str, prefix: &str) -> Cache {
    process_of_shape(url, prefix, "one").await
}

/// As [`process`], with a shape of bodies that `sample` identifies.
async fn process_of_shape(url: &str, prefix: &str, sample: &str) -> Cache {
    connect(url, prefix, sample, Lifetimes::default()).await
}

async fn connect(url: &str, prefix: &str, sample: &str, lifetimes: Lifetimes) -> Cache {
    let shape = BodyShape::of(sample.as_bytes());
    Cache::Redis(RedisCache::connect(url, prefix, None, shape, lifetimes).await.expect("an address of a Redis"))
}

async fn redis_cache(url: &str, lifetimes: Lifetimes) -> Cache {
    connect(url, &own_prefix(), "one", lifetimes).await
}

/// A SQLite file with the log of changed products.
struct Database {
    directory: tempfile::TempDir,
    connection: rusqlite::Connection,
}

impl Database {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let connection = rusqlite::Connection::open(directory.path().join("pm.db")).expect("a database");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = OFF;
                 CREATE TABLE cache_invalidation (
                     id INTEGER PRIMARY KEY AUTOINCREMENT, product_id INTEGER NOT NULL, created_at INTEGER NOT NULL
                 );
                 CREATE TABLE installation (singleton INTEGER PRIMARY KEY, id TEXT NOT NULL);
                 INSERT INTO installation VALUES (1, 'first');",
            )
            .expect("a schema");
        Self { directory, connection }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("pm.db")
    }

    fn cache(&self, lifetimes: Lifetimes) -> Cache {
        Cache::Memory(MemoryCache::open(64 << 20, &self.path(), lifetimes).expect("a database with a schema"))
    }

    fn another_process_changes(&self, ids: &[ProductId]) {
        for id in ids {
            let insert = "INSERT INTO cache_invalidation (product_id, created_at) VALUES (?1, 0)";
            self.connection.execute(insert, [id.0]).expect("a row");
        }
    }

    /// As `pm migrate fresh` does: ids restart, and the installation has another id.
    fn another_process_empties_the_catalog(&self) {
        self.connection
            .execute_batch(
                "DELETE FROM cache_invalidation; DELETE FROM sqlite_sequence;
                 UPDATE installation SET id = 'second';",
            )
            .expect("an empty catalog");
    }

    fn another_process_forgets_its_log(&self) {
        self.connection.execute("DELETE FROM cache_invalidation", []).expect("no rows");
    }
}
