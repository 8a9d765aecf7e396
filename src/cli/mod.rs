//! The command line: parses arguments, runs a command on the catalog, and returns an exit code.
//!
//! Data goes to stdout, everything else to stderr. This module contains no SQL and no HTTP.

mod args;
mod ask;
mod backup;
mod dead_letters;
mod doctor;
mod failure;
mod gc;
mod image;
mod image_source;
mod key;
mod migrate;
mod output;
mod product;
mod product_delete;
mod product_row;
mod product_update;
mod progress;
mod queue;
mod reload;
mod reprocess;
mod sandbox;
mod serve;
#[cfg(target_os = "linux")]
mod service;
mod settings;
mod signals;
mod spreadsheet;
mod user;
mod wait;
mod webhook;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
};

pub use args::Arguments;

use crate::{
    app::{self, Access, App},
    config::{self, LogFormat, Settings, Source},
    db, http, telemetry,
};
use args::Command;
use failure::{Exit, Failure};
use output::{Console, wants_color};

impl Arguments {
    /// Loads the settings for these arguments from the working directory.
    ///
    /// # Errors
    /// The exit code; the error message is already on stderr.
    pub fn settings(&self) -> Result<Settings, ExitCode> {
        load(&self.flags()).map_err(|error| Failure::from(error).report().into())
    }

    /// Returns the log configuration for this command.
    pub fn telemetry(&self, settings: &Settings) -> telemetry::Config {
        let terminal = io::stderr().is_terminal();
        let json = match settings.log_format {
            LogFormat::Auto => !terminal,
            LogFormat::Pretty => false,
            LogFormat::Json => true,
        };
        // A short command logs only warnings by default, so that its output stays readable.
        let unsaid = settings.source("log") == &Source::Default && !self.is_service();
        let pretty = if unsaid {
            telemetry::Format::Notices
        } else {
            telemetry::Format::Pretty { color: wants_color(self.global.color, terminal) }
        };
        telemetry::Config {
            filter: if unsaid { "warn,sqlx=error,lapin=off".into() } else { settings.log.clone() },
            format: if json { telemetry::Format::Json } else { pretty },
        }
    }
}

/// Loads the settings from the working directory, with the flags as the top layer.
fn load(flags: &config::Flags) -> Result<Settings, config::Error> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    config::load(flags, Path::new("."), environment)
}

/// Runs the command and reports a failure on stderr.
///
/// The runtime is created here, because the binary would otherwise compile every async function a second time.
pub fn run(arguments: Arguments, settings: Settings) -> ExitCode {
    let mut console = Console::new(&arguments.global);
    let flags = arguments.flags();
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Box::pin(dispatch(arguments.command, (flags, settings), &mut console))),
        Err(error) => Err(Failure::because(Exit::Failed, error).context("cannot start the runtime's threads")),
    };
    // Write the data that a failed command found before it failed.
    let flushed = console.flush().map_err(Failure::from);
    match outcome.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}

/// The flags, and the settings loaded with them.
type Given = (config::Flags, Settings);

async fn dispatch(command: Command, (flags, settings): Given, console: &mut Console) -> Result<Exit, Failure> {
    const UNCHANGED: &str = "run the same command again to restart it";
    let stop = signals::listen();
    let access = command.access();
    match command {
        Command::Serve(_) => Box::pin(serve::serve(settings.clone(), stop, reload::listen(flags, settings))).await,
        Command::Worker(_) => Box::pin(serve::work(settings.clone(), stop, reload::listen(flags, settings))).await,
        Command::Config => settings::run(&settings, console),
        Command::Openapi => openapi(console),
        Command::Webhook(command) => {
            let work = async { webhook::run(command, &open(settings, access).await?.catalog, console).await };
            Box::pin(signals::unless_stopped(&stop, UNCHANGED, work)).await
        }
        Command::Image(command) => image::run(command, &open(settings, access).await?, console),
        Command::Doctor(command) => {
            Box::pin(signals::unless_stopped(&stop, UNCHANGED, doctor::run(settings, &command, console))).await
        }
        Command::Gc { dry_run } => {
            let hint = "only unused files were deleted; run the same command again to continue";
            let work = async { gc::run(dry_run, &open(settings, access).await?, console).await };
            Box::pin(signals::unless_stopped(&stop, hint, work)).await
        }
        Command::Backup(command) => {
            let hint = "the previous backup is still valid; run the same command again, it copies no blob twice";
            let work = async { backup::save(&command, settings, console).await };
            Box::pin(signals::unless_stopped(&stop, hint, work)).await
        }
        Command::Restore(command) => {
            let hint = "either all rows were restored or none; run the same command again to restart it";
            let work = backup::restore(&command, settings, console);
            Box::pin(signals::unless_stopped(&stop, hint, work)).await
        }
        Command::Migrate(command) => {
            let hint = "`pm migrate status` shows the applied migrations; run the same command again to continue";
            Box::pin(signals::unless_stopped(&stop, hint, migrate::run(command, &settings, console))).await
        }
        Command::User(command) => {
            let work = async { user::run(command, &open(settings, access).await?.catalog, console).await };
            signals::unless_stopped(&stop, UNCHANGED, work).await
        }
        Command::Key(command) => {
            let work = async { key::run(command, &open(settings, access).await?.catalog, console).await };
            signals::unless_stopped(&stop, UNCHANGED, work).await
        }
        Command::Product(command) => {
            let app = signals::unless_stopped(&stop, UNCHANGED, open(settings, access)).await?;
            Box::pin(product::run(command, &app, console, &stop)).await
        }
        Command::Reprocess(command) => {
            let app = signals::unless_stopped(&stop, UNCHANGED, open(settings, access)).await?;
            reprocess::run(command, &app, console, &stop).await
        }
        Command::Queue(command) => {
            let app = signals::unless_stopped(&stop, UNCHANGED, open(settings, access)).await?;
            Box::pin(queue::run(command, &app, console, &stop)).await
        }
    }
}

fn openapi(console: &mut Console) -> Result<Exit, Failure> {
    let json = http::openapi_json().map_err(|error| Failure::new(Exit::Failed, error))?;
    let document: serde_json::Value =
        serde_json::from_slice(&json).map_err(|error| Failure::because(Exit::Failed, error))?;
    console.line(&format!("{document:#}"))?;
    Ok(Exit::Done)
}

async fn open(settings: Settings, access: Access) -> Result<App, Failure> {
    // Local image files may be untrusted as well.
    Ok(Box::pin(App::open(settings, access)).await?.isolated_by(sandbox::own_program()))
}

/// Returns the exit code of a command that cannot open the app.
fn exit_of(error: &app::Error) -> Exit {
    match error {
        app::Error::NoCatalog { .. } => Exit::Unreachable,
        app::Error::Setting(_)
        | app::Error::Tls(_)
        | app::Error::ForeignStore { .. }
        | app::Error::CopiedDatabase { .. }
        | app::Error::Database(db::Error::Misconfigured(_) | db::Error::SessionLost(_)) => Exit::Usage,
        error if error.is_transient() => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        let hint = match &error {
            app::Error::NoCatalog { serve_creates: true, .. } => {
                Some("`pm serve` and `pm migrate up` create one; PM_DATA_DIR and DATABASE_URL select another one")
            }
            app::Error::NoCatalog { serve_creates: false, .. } => Some(
                "`pm migrate up` creates one; with PM_AUTO_MIGRATE=true `pm serve` creates one at its start; \
                 DATABASE_URL selects another one",
            ),
            app::Error::OldSchema { .. } => {
                Some("`pm migrate up` applies them; with PM_AUTO_MIGRATE=true `pm serve` applies them at its start")
            }
            app::Error::NewSchema { .. } => {
                Some("install that version here as well; `pm migrate status` lists the migrations that this one lacks")
            }
            app::Error::Database(db::Error::NewerSchema(_)) => {
                Some("only a version of pm that knows these migrations may change the schema; use that version")
            }
            app::Error::ForeignStore { .. } => Some(
                "run pm in its own directory, or set PM_STORAGE_URL to its blobs. If the blobs are lost, or were moved \
                 without their file `installation.json`, run one command with PM_STORAGE_ADOPT=true. To take the store \
                 of another installation that no longer exists, delete that file first",
            ),
            app::Error::CopiedDatabase { .. } => Some(
                "if it is a copy, copy the store as well, set PM_STORAGE_URL to the copy, and run one command with \
                 PM_STORAGE_ADOPT=true. If it was moved, stop the original for good, and run one command with \
                 PM_STORAGE_ADOPT=true",
            ),
            app::Error::Setting(_)
            | app::Error::Tls(_)
            | app::Error::DataDirectory { .. }
            | app::Error::Database(db::Error::Misconfigured(_)) => {
                Some("`pm config` shows all settings and their sources")
            }
            app::Error::ReplacedDatabase { .. } => Some("restart pm; it opens the new file"),
            app::Error::Database(error) if failure::database_hint(error).is_some() => failure::database_hint(error),
            error if error.is_transient() => Some("`pm config` shows the configured address and its source"),
            _ => None,
        };
        let failure = Self::because(exit_of(&error), error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
