//! Cost of a job in the queue: claim and settlement with all their writes (image, product, renditions, invalidation),
//! compared with two bare durable commits of one row on the same database; and the cost of a claim with many waiting
//! jobs, compared with few.
//!
//! SQLite always; PostgreSQL if `PM_TEST_POSTGRES_URL` names a server with the right to create databases.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on says so by a panic")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use pm::{
    app::App,
    catalog::{Due, Outcome, Settlement},
    config::{self, Flags},
    db::{Config, Database, Postgres},
    domain::{Content, Facts, ImageSource, NewProduct, ProductDraft, Rendition},
};
use sea_orm::ConnectionTrait as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Jobs that wait before the measurement starts: the cost of one must not grow with them.
const BACKLOG: usize = 3_200;
/// Few waiting jobs and many, of a few users.
const FEW: usize = 128;
const MANY: usize = 100_000;
const USERS: usize = 4;

struct Subject {
    app: App,
    waiting: usize,
    outcome: Outcome,
}

impl Subject {
    async fn start(environment: BTreeMap<String, String>, directory: &TempDir) -> Self {
        let app = App::build(config::load(&Flags::default(), directory.path(), environment).unwrap()).await.unwrap();
        app.database.read().execute_unprepared("CREATE TABLE bare (id INTEGER PRIMARY KEY, n BIGINT)").await.unwrap();
        app.database.read().execute_unprepared("INSERT INTO bare VALUES (1, 0)").await.unwrap();
        let outcome = outcome(&app).await;
        Self { app, waiting: 0, outcome }
    }

    async fn fill(&mut self, jobs: usize) {
        while self.waiting < jobs {
            let draft = ProductDraft {
                user_id: Some(format!("bench-{}", self.waiting / NewProduct::MAX_IMAGES % USERS)),
                product_name: Some("Benchmark".into()),
                product_price: Some("1".into()),
                product_images: vec![ImageSource::Url("https://example.com/a.jpg".into()); NewProduct::MAX_IMAGES],
                ..ProductDraft::default()
            };
            let new = NewProduct::parse(draft, self.app.catalog.policy()).unwrap();
            self.app.catalog.create(new, None).await.unwrap();
            self.waiting += NewProduct::MAX_IMAGES;
        }
    }

    async fn claim_and_finish(&mut self, jobs: u64) -> Duration {
        self.fill(BACKLOG + usize::try_from(jobs).unwrap()).await;
        let began = Instant::now();
        for _ in 0..jobs {
            let claimed = self.app.catalog.claim(Due::any()).await.unwrap().claimed().unwrap();
            self.app.catalog.settle(&claimed, Settlement::Ready(self.outcome.clone())).await.unwrap();
        }
        self.waiting -= usize::try_from(jobs).unwrap();
        began.elapsed()
    }

    /// Measures a claim while this many jobs wait; each claimed job is released.
    async fn claim(&mut self, waiting: usize) -> Duration {
        const TIMES: u32 = 300;
        self.fill(waiting).await;
        let mut took = Duration::ZERO;
        for _ in 0..TIMES {
            let began = Instant::now();
            let claimed = self.app.catalog.claim(Due::any()).await.unwrap().claimed().unwrap();
            took += began.elapsed();
            self.app.catalog.settle(&claimed, Settlement::Release).await.unwrap();
        }
        took / TIMES
    }

    async fn two_bare_commits(&mut self, times: u64) -> Duration {
        let began = Instant::now();
        for _ in 0..2 * times {
            let write = self.app.database.begin().await.unwrap();
            write.execute_unprepared("UPDATE bare SET n = n + 1 WHERE id = 1").await.unwrap();
            write.commit().await.unwrap();
        }
        began.elapsed()
    }
}

/// Renditions with existing blobs, since settlement checks them.
async fn outcome(app: &App) -> Outcome {
    let mut renditions = Vec::new();
    for (preset, format, extension) in
        [("large", "jpeg", "jpg"), ("medium", "webp", "webp"), ("small", "webp", "webp"), ("thumb", "jpeg", "jpg")]
    {
        let key = app.blobs.put(preset.into(), extension).await.unwrap().to_string();
        let (preset, format) = (preset.into(), format.into());
        renditions.push(Rendition { preset, format, width: 2048, height: 1365, bytes: 300_000, key });
    }
    let facts = Facts {
        width: 4000,
        height: 3000,
        format: "jpeg".into(),
        bytes: 3_000_000,
        thumbhash: "AAAAAAAA".into(),
        dominant_color: "#808080".into(),
        perceptual_hash: None,
    };
    let content = Content { sha256: "00".repeat(32), pipeline_fingerprint: "00".repeat(16) };
    Outcome { facts, warnings: Vec::new(), renditions, presets: None, content }
}

fn measure(criterion: &mut Criterion, name: &str, runtime: &Runtime, subject: &mut Subject) {
    let with_few = runtime.block_on(subject.claim(FEW));
    let mut group = criterion.benchmark_group(format!("queue/{name}"));
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    let mut total = [(Duration::ZERO, 0_u64); 2];
    group.bench_function("claim and finish", |bencher| {
        bencher.iter_custom(|times| {
            let took = runtime.block_on(subject.claim_and_finish(times));
            total[0] = (total[0].0 + took, total[0].1 + times);
            took
        });
    });
    group.bench_function("two bare commits", |bencher| {
        bencher.iter_custom(|times| {
            let took = runtime.block_on(subject.two_bare_commits(times));
            total[1] = (total[1].0 + took, total[1].1 + times);
            took
        });
    });
    group.finish();
    let each = |(took, times): (Duration, u64)| took.as_secs_f64() / times.max(1) as f64;
    println!("queue/{name}: claim and finish / two bare commits: {:.2}", each(total[0]) / each(total[1]));
    let with_many = runtime.block_on(subject.claim(MANY));
    let ratio = with_many.as_secs_f64() / with_few.as_secs_f64();
    println!("queue/{name}: claim, {MANY} waiting / {FEW} waiting: {with_many:?} / {with_few:?} = {ratio:.2}");
}

fn queue(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let directory = TempDir::new().unwrap();
    let data = ("PM_DATA_DIR".to_owned(), directory.path().display().to_string());
    let mut sqlite = runtime.block_on(Subject::start(BTreeMap::from([data.clone()]), &directory));
    measure(criterion, "sqlite", &runtime, &mut sqlite);
    let Ok(server) = std::env::var("PM_TEST_POSTGRES_URL") else {
        println!("queue/postgres: PM_TEST_POSTGRES_URL is not set");
        return;
    };
    let name = format!("pm_bench_{}", uuid::Uuid::new_v4().simple());
    let admin = runtime.block_on(async {
        let admin =
            Database::connect(&Config::Postgres(Postgres { max_connections: 1, ..Postgres::new(server.clone()) }))
                .await
                .unwrap();
        admin.read().execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin
    });
    let mut url = url::Url::parse(&server).unwrap();
    url.set_path(&name);
    let environment =
        [data, ("DATABASE_URL".into(), url.into()), ("PM_AUTO_MIGRATE".into(), "true".into())].into_iter().collect();
    let mut postgres = runtime.block_on(Subject::start(environment, &directory));
    measure(criterion, "postgres", &runtime, &mut postgres);
    runtime.block_on(admin.read().execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)"))).unwrap();
}

criterion_group!(benches, queue);
criterion_main!(benches);
