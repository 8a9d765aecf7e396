//! The command line: which experiments are to be run, and how. Also takes what `cargo test` hands to every test program.

use std::path::PathBuf;

use clap::Parser;

use crate::{
    experiments::Experiment,
    stage::{Form, Setup},
};

/// Experiments that prove the program's promises on engines that are killed, frozen and robbed.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
pub struct Arguments {
    /// Promises to prove, such as P1 P9; all of them without any. Other words choose by parts of names
    #[arg(value_name = "Pnn")]
    wanted: Vec<String>,
    /// Only this set-up: embedded (SQLite alone) or full (PostgreSQL, Redis, RabbitMQ)
    #[arg(long, value_enum, ignore_case = true)]
    setup: Option<Setup>,
    /// What all chance in an experiment follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The experiments at their full size, one at a time, instead of a short form of each
    #[arg(long)]
    full: bool,
    /// Show the experiments instead of running them
    #[arg(long)]
    pub list: bool,
    /// Write what became of each file to FILE, by an experiment with files: P12
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Let the soak of P34 take N minutes in its full form, at least 10
    #[arg(long, value_name = "N")]
    pub minutes: Option<u64>,
    #[command(flatten)]
    foreign: Foreign,
}

/// What test programs understand and `cargo test -- …` therefore hands to this one as well.
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
        // `soak` is the word for the full form of P34.
        let full = self.full || self.minutes.is_some() || self.wanted.iter().any(|word| word == "soak");
        if full { Form::Full } else { Form::Short }
    }

    /// Whether a machine asks for the list, as test runners do.
    pub fn terse(&self) -> bool {
        self.foreign.format.is_some()
    }

    /// Whether the experiment is to be run on the set-up.
    pub fn want(&self, experiment: &Experiment, setup: Setup) -> bool {
        // Nothing here is ignored or a benchmark, so whoever wants only that wants nothing.
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

    /// A promise that was asked for and has no experiment here.
    pub fn unknown(&self, experiments: &[Experiment]) -> Option<&str> {
        let known = |word: &str| experiments.iter().any(|known| word.eq_ignore_ascii_case(known.promise));
        self.wanted.iter().map(String::as_str).find(|word| is_promise(word) && !known(word))
    }
}

/// Whether a word names a promise, such as `P12`; every other one is a part of a test's name.
fn is_promise(word: &str) -> bool {
    let number = word.strip_prefix(['P', 'p']).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}
