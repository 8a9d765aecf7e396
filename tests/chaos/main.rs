//! Experiments with the real program as real processes, on engines that are started, killed, frozen and stripped of
//! their data: one experiment for each promise. `scripts/chaos --list` lists them; docs/RELIABILITY.md explains them.
//!
//! Prints one JSON line for each experiment and set-up to stdout; everything else goes to stderr. A plain `cargo test`
//! runs the short form of each.

#![allow(dead_code, reason = "every engine and process offers the same, whether an experiment needs it or not")]

mod api;
mod arguments;
mod clock;
mod engines;
mod experiments;
mod faults;
mod freshness;
mod guard;
mod inputs;
mod ledger;
mod logs;
mod measurements;
mod parts;
mod processes;
mod program;
mod run;
mod soundness;
mod stage;
mod wrapped;

#[allow(dead_code, clippy::unwrap_used, reason = "not every experiment needs every image")]
#[path = "../it/support/images.rs"]
mod images;
#[allow(dead_code, clippy::unwrap_used, reason = "not every experiment needs every kind of token")]
#[path = "../it/support/issuer.rs"]
mod issuer;
#[allow(dead_code, reason = "not every experiment needs every misbehaviour")]
#[path = "../it/support/origin.rs"]
mod origin;
#[allow(dead_code, reason = "not every experiment needs every fault")]
#[path = "../it/support/proxy.rs"]
mod proxy;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if guard::ran_as_guard() {
        return ExitCode::SUCCESS;
    }
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Some(exit) = parts::ran_as_part() {
        return exit;
    }
    let arguments = arguments::Arguments::parse();
    if let Some(table) = &arguments.table {
        inputs::TABLE.get_or_init(|| table.clone());
    }
    if let Some(minutes) = arguments.minutes {
        experiments::soak_grows_nothing::MINUTES.get_or_init(|| minutes);
    }
    match run::run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
