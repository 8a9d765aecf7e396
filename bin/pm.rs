//! The `pm` binary: parses arguments, starts logging, runs the command. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use pm::{
    cli::{self, Arguments},
    isolation, memory, private_files, telemetry,
};

fn main() -> ExitCode {
    #[cfg(unix)]
    if std::env::args_os().skip(1).eq([isolation::ARGUMENT]) {
        return isolation::run_decoder();
    }
    private_files::restrict_umask();
    memory::bound_allocator();
    // An error means that a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let settings = match arguments.settings() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let _guard = telemetry::init(&arguments.telemetry(&settings));
    cli::run(arguments, settings)
}
