//! P24: backup and restore. A backup runs while products are written and processed, and is restored into an empty
//! installation: every product acknowledged before the backup began is unchanged, with its images, and the data are
//! sound. On the full set-up a backup of the embedded one is restored as well.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    api::Api,
    engines::{Postgres, programs},
    images,
    ledger::Ledger,
    measurements::{counts, milliseconds},
    origin::Origin,
    processes::{Process, Spec},
    soundness::Counts,
    stage::{Setup, Stage},
};

/// An installation of the program, beside others on the same stage.
pub(super) struct Installation<'a> {
    stage: &'a Stage,
    name: &'static str,
    pub(super) environment: BTreeMap<String, String>,
    address: SocketAddr,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let ways: &[(Setup, Setup)] = match stage.setup {
        Setup::Embedded => &[(Setup::Embedded, Setup::Embedded)],
        Setup::Full => &[(Setup::Full, Setup::Full), (Setup::Embedded, Setup::Full)],
    };
    let mut all = Counts::new();
    for (from, to) in ways {
        let way = format!("{}_to_{}", from.letter(), to.letter());
        let printed = one(stage, *from, *to).await.with_context(|| way.clone())?;
        all.insert(way, printed);
    }
    Ok(all)
}

async fn one(stage: &Stage, from: Setup, to: Setup) -> anyhow::Result<Value> {
    let letters = (from.letter().to_lowercase(), to.letter().to_lowercase());
    let directory = stage.directory.join(format!("backup_{}_{}", letters.0, letters.1));
    let source = Installation::new(stage, "source", from, &letters.1).await?;
    let mut server = source.serve(2).await?;
    let origin = Origin::start().await;
    let ledger = Ledger::default();
    let api = source.api();
    let ended = AtomicBool::new(false);
    let load = load((&ledger, &api, &origin), stage.size(30, 1_000), &ended);
    let backup = async {
        // By now there is something of every kind: some images are ready, some in progress.
        while ledger.entries().len() < stage.size(15, 500) {
            sleep(Duration::from_millis(20)).await;
        }
        let before = ledger.entries();
        let began = Instant::now();
        source.pm(&["backup", &directory.display().to_string()]).await?;
        ended.store(true, Relaxed);
        anyhow::Ok((before, began.elapsed()))
    };
    let (loaded, backed_up) = tokio::join!(load, backup);
    loaded?;
    let (before, took) = backed_up?;
    let written = ledger.entries().len();
    server.kill().await;

    let target = Installation::new(stage, "target", to, &letters.0).await?;
    let began = Instant::now();
    target.pm(&["restore", &directory.display().to_string(), "--yes"]).await?;
    let restored = began.elapsed();
    let mut server = target.serve(2).await?;
    let api = target.api();
    let images = compare(&before, &api).await?;
    target.is_healthy().await?;
    let created = api.create("after the restore", &[]).await?;
    anyhow::ensure!(before.iter().all(|entry| created["id"] != entry.id), "a product id was used twice: {created}");
    server.kill().await;
    Ok(Value::Object(counts(json!({
        "acknowledged_before": before.len(), "written_meanwhile": written - before.len(), "missing": 0,
        "images": images, "backup_ms": milliseconds(took), "restore_ms": milliseconds(restored),
    }))))
}

/// Creates products one after the other, at least `least` and until the backup has ended.
async fn load((ledger, api, origin): (&Ledger, &Api, &Origin), least: usize, ended: &AtomicBool) -> anyhow::Result<()> {
    for number in 0.. {
        if number >= least && ended.load(Relaxed) {
            break;
        }
        let path = format!("/{}.jpg", number % 50);
        let drawn = u32::try_from(number % 50)?;
        origin.serve(&path, "image/jpeg", images::numbered_jpeg(drawn, 96, 64));
        let answer = ledger.create(api, &format!("product {number}"), &[origin.url(&path)]).await?;
        anyhow::ensure!(answer.status == 201, "during a backup POST was answered {}: {}", answer.status, answer.body);
    }
    Ok(())
}

/// Checks that every product is as acknowledged and every image becomes ready and is served; returns their number.
async fn compare(before: &[crate::ledger::Entry], api: &Api) -> anyhow::Result<usize> {
    let mut images = 0;
    for entry in before {
        let began = Instant::now();
        let product = loop {
            let product = api.product(entry.id).await?;
            if product["status"] != "processing" {
                break product;
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "still in progress: {product}");
            sleep(Duration::from_millis(50)).await;
        };
        for field in ["user_id", "product_name", "product_description", "product_price", "product_images", "created_at"]
        {
            anyhow::ensure!(product[field] == entry.body[field], "{field} of {product} was {}", entry.body[field]);
        }
        anyhow::ensure!(product["status"] == "ready", "after the restore: {product}");
        for made in product["images"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|image| image["renditions"].as_array())
            .flatten()
        {
            let url = made["url"].as_str().context("a rendition's URL")?;
            let response = api.client().get(api.url(url)).send().await?;
            anyhow::ensure!(response.status() == 200, "{url} is answered {}", response.status());
            let bytes = response.bytes().await?.len();
            anyhow::ensure!(made["bytes"] == bytes, "{url} has {bytes} bytes: {made}");
            images += 1;
        }
    }
    Ok(images)
}

impl<'a> Installation<'a> {
    /// Creates an installation with an empty, complete schema.
    pub(super) async fn new(stage: &'a Stage, name: &'static str, setup: Setup, other: &str) -> anyhow::Result<Self> {
        let mut environment = stage.spec(name).environment;
        let own = format!("{}_{name}_{}{other}", stage.name, setup.letter().to_lowercase());
        let data = stage.directory.join(&own);
        let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
        let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
        set("PM_DATA_DIR", data.display().to_string());
        set("PM_LISTEN", address.to_string());
        set("PM_REDIS_PREFIX", own.clone());
        set("PM_RABBITMQ_QUEUE", format!("{own}.images"));
        match setup {
            Setup::Embedded => ["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"].iter().for_each(|name| {
                environment.remove(*name);
            }),
            Setup::Full => {
                stage.engines().postgres.create_database(&own).await?;
                set("DATABASE_URL", Postgres::url(stage.engines().postgres.address(), &own));
            }
        }
        let installation = Self { stage, name, environment, address };
        if name == "source" {
            installation.pm(&["migrate", "up"]).await?;
        }
        Ok(installation)
    }

    pub(super) fn spec(&self) -> Spec {
        Spec { environment: self.environment.clone(), ..self.stage.spec(self.name) }
    }

    pub(super) async fn pm(&self, words: &[&str]) -> anyhow::Result<String> {
        self.spec().arguments(words).succeed(Duration::from_secs(600)).await
    }

    pub(super) fn api(&self) -> Api {
        Api::new(self.address)
    }

    pub(super) async fn serve(&self, workers: usize) -> anyhow::Result<Process> {
        let process = self.spec().arguments(["serve", "--workers", &workers.to_string()]).spawn()?;
        self.api().up(Duration::from_secs(60)).await.with_context(|| format!("see {}", process.log().display()))?;
        Ok(process)
    }

    pub(super) async fn is_healthy(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let output = self.spec().arguments(["doctor", "--json"]).run(Duration::from_secs(120)).await?;
            let printed: Value = serde_json::from_slice(&output.stdout).context("pm doctor")?;
            if printed["healthy"] == true {
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "pm doctor: {printed}");
            sleep(Duration::from_millis(500)).await;
        }
    }
}
