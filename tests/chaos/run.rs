//! Runs the selected experiments and reports each: one JSON line on stdout, reasons on stderr.

use std::{
    io::Write as _,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;

use crate::{
    arguments::Arguments,
    engines::Engines,
    experiments::{self, Experiment, Use},
    guard::Guard,
    soundness::Counts,
    stage::{Form, Setup, Stage},
};

/// Number of peaceful experiments that run in parallel in their short form.
const SIDE_BY_SIDE: usize = 4;

/// Whether this is the first run of an experiment, or its retry.
#[derive(Clone, Copy)]
enum Attempt {
    First,
    Retry,
}

/// An experiment on a set-up.
struct Session<'a> {
    arguments: &'a Arguments,
    root: &'a Path,
    failed: AtomicBool,
}

/// Runs the selected experiments; returns whether all passed.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if let Some(unknown) = arguments.unknown(experiments::ALL) {
        anyhow::bail!("experiment {unknown} not found; --list shows all experiments");
    }
    if arguments.list {
        return list(arguments).map(|()| true);
    }
    let wanted = |setup| experiments::ALL.iter().filter(|known| arguments.want(known, setup)).collect::<Vec<_>>();
    let (embedded, full) = (wanted(Setup::Embedded), wanted(Setup::Full));
    if embedded.is_empty() && full.is_empty() {
        return Ok(true);
    }
    let guard = Guard::start()?;
    let session = Session { arguments, root: guard.root(), failed: AtomicBool::new(false) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a runtime")?;
    let mut interruption = false;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = session.all(&embedded, &full) => outcome,
            () = interrupted() => {
                interruption = true;
                Err(anyhow::anyhow!("interrupted"))
            }
        }
    });
    // Drops, and so stops, everything that experiments still hold, before the guard acts.
    drop(runtime);
    let failed = session.failed.load(Ordering::SeqCst);
    let keep = failed || (outcome.is_err() && !interruption);
    if keep {
        eprintln!("chaos: logs and data are left in {}", guard.root().display());
    }
    guard.finish(keep);
    outcome.map(|()| !failed)
}

fn list(arguments: &Arguments) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for experiment in experiments::ALL {
        if arguments.terse() {
            for setup in experiment.setups {
                writeln!(out, "{}: test", experiment.name(*setup))?;
            }
            continue;
        }
        let setups: Vec<_> = experiment.setups.iter().map(|setup| setup.letter()).collect();
        let alone = if experiment.engines == Use::Hostile { "takes engines down" } else { "" };
        writeln!(out, "{:<4} {:<4} {:<60} {alone}", experiment.promise, setups.join(" "), experiment.title)?;
    }
    Ok(())
}

/// The outcome of an experiment.
#[derive(Serialize)]
struct Line {
    promise: &'static str,
    setup: &'static str,
    seed: u64,
    form: &'static str,
    passed: bool,
    seconds: f64,
    #[serde(flatten)]
    counts: Counts,
}

impl Session<'_> {
    async fn all(&self, embedded: &[&Experiment], full: &[&Experiment]) -> anyhow::Result<()> {
        let engines = self.engines(full).await?;
        let (peaceful, hostile): (Vec<_>, Vec<_>) = match engines {
            Some(_) => full.iter().partition(|experiment| experiment.engines == Use::Peaceful),
            None => Default::default(),
        };
        let (embedded, full) =
            (self.some(embedded, Setup::Embedded, None), self.some(&peaceful, Setup::Full, engines.as_ref()));
        // Two cores run both at a time; full forms run alone, for their measurements.
        let (embedded, full) = match self.arguments.form() {
            Form::Full => (embedded.await, full.await),
            Form::Short => tokio::join!(embedded, full),
        };
        for experiment in embedded {
            self.again(experiment, Setup::Embedded, None).await;
        }
        for experiment in full {
            self.again(experiment, Setup::Full, engines.as_ref()).await;
        }
        if let Some(engines) = engines {
            for experiment in hostile {
                let passed = self.one(experiment, Setup::Full, Some(&engines), Attempt::First).await;
                self.note(passed);
                engines.restore().await?;
            }
            engines.stop().await;
        }
        Ok(())
    }

    /// Starts the engines for experiments of the full set-up; `None` if none needs them, or they are skipped.
    async fn engines(&self, experiments: &[&Experiment]) -> anyhow::Result<Option<Arc<Engines>>> {
        if experiments.is_empty() {
            return Ok(None);
        }
        let missing = Engines::missing();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            anyhow::ensure!(std::env::var("PM_TEST_REQUIRE").as_deref() != Ok("all"), "missing: {missing}");
            eprintln!("skipped: {} experiments on the full set-up, missing: {missing}", experiments.len());
            return Ok(None);
        }
        Ok(Some(Arc::new(Engines::start(&self.root.join("engines")).await?)))
    }

    /// Runs these experiments, short forms in parallel; returns those that failed.
    async fn some<'a>(
        &self,
        experiments: &[&'a Experiment],
        setup: Setup,
        engines: Option<&Arc<Engines>>,
    ) -> Vec<&'a Experiment> {
        let at_once = if self.arguments.form() == Form::Full { 1 } else { SIDE_BY_SIDE };
        let runs = experiments.iter().map(async |experiment| {
            let passed = self.one(experiment, setup, engines, Attempt::First).await;
            (!passed).then_some(*experiment)
        });
        let failed: Vec<_> = stream::iter(runs).buffer_unordered(at_once).collect().await;
        failed.into_iter().flatten().collect()
    }

    /// Runs an experiment again, alone, if it failed beside others: promises do not hold on a small machine that runs
    /// everything at once.
    async fn again(&self, experiment: &Experiment, setup: Setup, engines: Option<&Arc<Engines>>) {
        let had_company = self.arguments.form() == Form::Short;
        let passed = had_company && self.one(experiment, setup, engines, Attempt::Retry).await;
        self.note(passed);
    }

    fn note(&self, passed: bool) {
        self.failed.fetch_or(!passed, Ordering::SeqCst);
    }

    /// Runs an experiment and reports it; returns whether it passed.
    async fn one(
        &self,
        experiment: &Experiment,
        setup: Setup,
        engines: Option<&Arc<Engines>>,
        attempt: Attempt,
    ) -> bool {
        let (form, seed) = (self.arguments.form(), self.arguments.seed);
        let began = Instant::now();
        let running = AssertUnwindSafe(self.on_stage(experiment, setup, engines, attempt));
        let outcome = match running.catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("the experiment panicked; see the message above")),
        };
        let mut line = Line {
            promise: experiment.promise,
            setup: setup.letter(),
            seed,
            form: form.name(),
            passed: outcome.is_ok(),
            seconds: (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            counts: Counts::new(),
        };
        let passed = line.passed;
        match outcome {
            Ok(counts) => line.counts = counts,
            Err(error) => {
                let full = if form == Form::Full { " --full" } else { "" };
                eprintln!("chaos: {} on {} failed: {error:#}", experiment.promise, setup.letter());
                eprintln!(
                    "chaos: repeat with: scripts/chaos {} --setup {} --seed {seed}{full}",
                    experiment.promise,
                    setup.letter().to_lowercase()
                );
            }
        }
        println!("{}", serde_json::to_string(&line).expect("names are strings"));
        passed
    }

    async fn on_stage(
        &self,
        experiment: &Experiment,
        setup: Setup,
        engines: Option<&Arc<Engines>>,
        attempt: Attempt,
    ) -> anyhow::Result<Counts> {
        let how = (setup, self.arguments.form(), self.arguments.seed);
        let name = match attempt {
            Attempt::First => experiment.promise.to_owned(),
            Attempt::Retry => format!("{}_again", experiment.promise),
        };
        let stage = Stage::set(how, &name, self.root, engines.cloned()).await?;
        let counts = experiment.run(&stage).await?;
        stage.deserted().await?;
        Ok(counts)
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate()).expect("a handler can be set");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
