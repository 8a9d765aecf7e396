//! P28: clocks may be wrong. One process, and in some rounds PostgreSQL, has a wrong clock, or a clock that is stepped
//! during its work. No image fails because of it, no living worker loses a job, and a killed worker's jobs are claimed
//! again within 20 s.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    api::Api,
    clock::FakeClock,
    engines::programs,
    images,
    measurements::counts,
    origin::Origin,
    soundness::{self, Counts},
    stage::{Form, Setup, Stage},
};

/// The process with the wrong clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// A `pm serve` with a worker.
    Process,
    /// The database server.
    Server,
}

/// The clock's error in seconds at first, and during the work.
type Fault = (&'static str, Whose, i64, i64);

const HOUR: i64 = 3_600;
const FAULTS: [Fault; 8] = [
    ("ahead_20_s", Whose::Process, 20, 20),
    ("step_back_1_h", Whose::Process, 0, -HOUR),
    ("server_step_forward_1_h", Whose::Server, 0, HOUR),
    ("step_forward_1_h", Whose::Process, 0, HOUR),
    ("behind_20_s", Whose::Process, -20, -20),
    ("ahead_1_h", Whose::Process, HOUR, HOUR),
    ("behind_1_h", Whose::Process, -HOUR, -HOUR),
    ("server_step_back_1_h", Whose::Server, 0, -HOUR),
];
/// A short form takes only the first of them.
const SHORT: usize = 3;
/// Time limit until a killed worker's jobs are claimed again.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the victim works before it is killed; its downloads take longer.
const BEFORE_STEP: Duration = Duration::from_secs(3);
const AFTER_STEP: Duration = Duration::from_secs(9);
const SLOW_SECONDS: u64 = 40;
const HELD: usize = 3;
/// Images of each kind that are queued through each of the two servers.
const EACH: usize = 3;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let Some(faketime) = FakeClock::library() else {
        let missing = "libfaketime (Debian: apt-get install libfaketime)";
        anyhow::ensure!(std::env::var("PM_TEST_REQUIRE").as_deref() != Ok("all"), "missing: {missing}");
        eprintln!("skipped: P28, missing: {missing}");
        return Ok(counts(json!({"skipped": missing})));
    };
    stage.configure("PM_FETCH_TIMEOUT", "60s");
    let outcome = Rounds { stage, faketime, origin: Origin::start().await }.run().await;
    if stage.setup == Setup::Full {
        stage.engines().postgres.restart_under(None).await?;
    }
    outcome
}

struct Rounds<'a> {
    stage: &'a Stage,
    faketime: std::path::PathBuf,
    origin: Origin,
}

/// Images queued in a round.
#[derive(Default)]
struct Queued {
    /// Paths that must be requested once.
    good: Vec<String>,
    /// Paths that must be requested three times: the origin refuses the first two.
    flaky: Vec<String>,
}

impl Rounds<'_> {
    async fn run(&self) -> anyhow::Result<Counts> {
        let faults = if self.stage.form == Form::Short { &FAULTS[..SHORT] } else { &FAULTS[..] };
        let mut server = self.stage.serve(&["--no-worker"]).await?;
        let (mut longest, mut rounds, mut again) = (Duration::ZERO, Vec::new(), 0);
        for (number, fault) in faults.iter().enumerate() {
            if fault.1 == Whose::Server && self.stage.setup == Setup::Embedded {
                continue;
            }
            let (claimed, repeated) = self.round(number, *fault, &server.api()).await.context(fault.0)?;
            longest = longest.max(claimed);
            again += repeated;
            rounds.push(fault.0);
        }
        let mut found = soundness::check(self.stage).await?;
        server.process.kill().await;
        let failed = &found["images_failed"];
        anyhow::ensure!(*failed == 0, "{failed} valid images failed");
        let twice = "SELECT count(*) FROM (SELECT 1 FROM renditions GROUP BY image_id, preset, format
            HAVING count(*) > 1) AS twice";
        let twice = self.stage.number(twice).await?;
        anyhow::ensure!(twice == 0, "{twice} renditions are duplicates");
        found.extend(counts(json!({
            "rounds": rounds, "kills": rounds.len(), "double_results": twice, "done_again": again,
            "longest_seconds_to_claim": (longest.as_secs_f64() * 100.0).round() / 100.0,
        })));
        Ok(found)
    }

    /// Returns how long the killed worker's jobs waited, and how many images were requested too often.
    async fn round(&self, number: usize, fault: Fault, api: &Api) -> anyhow::Result<(Duration, usize)> {
        let (name, whose, at_first, then) = fault;
        let stage = self.stage;
        let file = stage.directory.join(format!("{name}.clock"));
        let clock = FakeClock::set(self.faketime.clone(), file, at_first)?;
        if whose == Whose::Server {
            stage.engines().postgres.restart_under(Some(clock.clone())).await?;
        }
        let mut victim = stage.worker("victim", 1).await?;
        let held = self.occupy_workers(number, api).await?;
        if whose == Whose::Process {
            clock.variables().into_iter().for_each(|(name, value)| stage.configure(name, value));
        }
        let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
        let odd = stage.serve_at("odd", address, &["--workers", "1"]).await;
        FakeClock::VARIABLES.into_iter().for_each(|name| stage.unset(name));
        let mut odd = odd?;
        let mut steady = stage.worker("steady", 2).await?;
        let mut queued = Queued::default();
        for (server, api) in [("odd", odd.api()), ("usual", api.clone())] {
            self.queue(&api, &format!("{number}/{server}"), &mut queued).await?;
        }
        sleep(BEFORE_STEP).await;
        clock.step_to(then)?;
        sleep(AFTER_STEP).await;
        let stolen = self.claimed_again(&held).await?;
        anyhow::ensure!(stolen.is_empty(), "jobs {stolen:?} were taken from a living worker");
        let killed = Instant::now();
        victim.kill().await;
        while self.claimed_again(&held).await?.len() < held.len() {
            let elapsed = killed.elapsed();
            anyhow::ensure!(elapsed <= LIMIT, "some of {held:?} were not claimed again within {LIMIT:?} of the kill");
            sleep(Duration::from_millis(50)).await;
        }
        let claimed = killed.elapsed();
        stage.settled(Duration::from_secs(120)).await?;
        odd.process.kill().await;
        steady.kill().await;
        Ok((claimed, self.asked_too_often(&queued)?))
    }

    /// Gives the only worker images that take long.
    async fn occupy_workers(&self, number: usize, api: &Api) -> anyhow::Result<Vec<i64>> {
        let path = |place| format!("/held/{number}/{place}.jpg");
        let urls: Vec<_> =
            (0..HELD).map(|place| format!("{}?first-over={SLOW_SECONDS}", self.serve(&path(place)))).collect();
        create(api, &format!("held {number}"), &urls).await?;
        let sql = "SELECT id FROM jobs WHERE state = 'running'";
        let waiting = async {
            loop {
                let rows = self.stage.rows(sql).await?;
                if rows.len() == HELD {
                    return rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect();
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.context("the victim claimed no jobs")?
    }

    async fn queue(&self, api: &Api, name: &str, queued: &mut Queued) -> anyhow::Result<()> {
        for place in 0..EACH {
            let (good, flaky) = (format!("/good/{name}/{place}.jpg"), format!("/flaky/{name}/{place}.jpg"));
            self.origin.fail_first(&flaky, 2, 503);
            create(api, &format!("{name} {place}"), &[self.serve(&good), self.serve(&flaky)]).await?;
            queued.good.push(good);
            queued.flaky.push(flaky);
        }
        Ok(())
    }

    fn serve(&self, path: &str) -> String {
        self.origin.serve(path, "image/jpeg", images::numbered_jpeg(fastrand::u32(..), 96, 64));
        self.origin.url(path)
    }

    async fn claimed_again(&self, jobs: &[i64]) -> anyhow::Result<Vec<i64>> {
        let rows = self.stage.rows("SELECT id FROM jobs WHERE attempt > 1").await?;
        let all: Result<Vec<i64>, _> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
        Ok(all?.into_iter().filter(|job| jobs.contains(job)).collect())
    }

    /// Checks that each image was requested as often as needed, since no worker that had it died.
    fn asked_too_often(&self, queued: &Queued) -> anyhow::Result<usize> {
        let again = |paths: &[String], times| paths.iter().filter(|path| self.origin.hits(path) != times).count();
        let again = again(&queued.good, 1) + again(&queued.flaky, 3);
        anyhow::ensure!(again == 0, "{again} images were not requested exactly as often as needed");
        Ok(again)
    }
}

/// After a restart of its database a server finds its connections broken, one after the other.
async fn create(api: &Api, name: &str, images: &[String]) -> anyhow::Result<()> {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        if api.create(name, images).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    api.create(name, images).await.map(|_| ())
}
