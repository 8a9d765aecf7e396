//! The command line: the experiments to run, and how. Also accepts the arguments that `cargo test` passes to test
//! programs.

use std::path::PathBuf;

use clap::Parser;

use crate::{
    experiments::Experiment,
    stage::{Form, Setup},
};

/// Experiments that prove the program's promises while engines are killed, frozen and lose their data.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
pub struct Arguments {
    /// Promises to prove, such as `P1 P9`; all if none is given. Other words select tests by a part of their name
    #[arg(value_name = "Pnn")]
    wanted: Vec<String>,
    /// Only this set-up: embedded (SQLite alone) or full (PostgreSQL, Redis, RabbitMQ)
    #[arg(long, value_enum, ignore_case = true)]
    setup: Option<Setup>,
    /// Seed of all random choices in the experiments
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Run the experiments at full size, one at a time, instead of their short form
    #[arg(long)]
    full: bool,
    /// List the experiments instead of running them
    #[arg(long)]
    pub list: bool,
    /// Write the outcome of each file to FILE (P12 only)
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Duration of the full P34 soak in minutes, at least 10
    #[arg(long, value_name = "N")]
    pub minutes: Option<u64>,
    #[command(flatten)]
    foreign: Foreign,
}

/// Options of libtest that `cargo test -- …` also passes to this program.
#[derive(Debug, clap::Args)]
struct Foreign {
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true, value_name = "NAME")]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true, aliases = ["no-capture"])]
    nocapture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    test: bool,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    report_time: bool,
    #[arg(long, hide = true)]
    shuffle: bool,
    #[arg(short, long, hide = true)]
    quiet: bool,
    #[arg(short = 'Z', hide = true)]
    unstable: Vec<String>,
    #[arg(long, hide = true)]
    test_threads: Option<String>,
    #[arg(long, hide = true)]
    shuffle_seed: Option<String>,
    #[arg(long, hide = true)]
    logfile: Option<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
}

impl Arguments {
    /// The size of the experiments.
    pub fn form(&self) -> Form {
        // `soak` means the full form of P34.
        let full = self.full || self.minutes.is_some() || self.wanted.iter().any(|word| word == "soak");
        if full { Form::Full } else { Form::Short }
    }

    /// Returns whether a test runner, such as nextest, asks for the list of tests.
    pub fn terse(&self) -> bool {
        self.foreign.format.is_some()
    }

    /// Returns whether the experiment is selected on the set-up.
    pub fn want(&self, experiment: &Experiment, setup: Setup) -> bool {
        // There are no ignored tests and no benchmarks here, so a run that asks only for those selects nothing.
        if self.foreign.ignored || self.foreign.bench || !experiment.setups.contains(&setup) {
            return false;
        }
        let name = experiment.name(setup);
        let is_called = |word: &String| if self.foreign.exact { name == *word } else { name.contains(word.as_str()) };
        let chosen = self.wanted.is_empty()
            || self.wanted.iter().any(|word| {
                if is_promise(word) { word.eq_ignore_ascii_case(experiment.promise) } else { is_called(word) }
            });
        chosen && self.setup.is_none_or(|only| only == setup) && !self.foreign.skip.iter().any(is_called)
    }

    /// Returns a requested promise that no experiment here proves.
    pub fn unknown(&self, experiments: &[Experiment]) -> Option<&str> {
        let known = |word: &str| experiments.iter().any(|known| word.eq_ignore_ascii_case(known.promise));
        self.wanted.iter().map(String::as_str).find(|word| is_promise(word) && !known(word))
    }
}

/// Returns whether a word is a promise's number, such as `P12`; other words are parts of test names.
fn is_promise(word: &str) -> bool {
    let number = word.strip_prefix(['P', 'p']).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}
