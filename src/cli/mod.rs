//! The command line: words in, a command run over the same catalogue as the API, an exit code out.
//!
//! Data goes to stdout, everything else to stderr. It knows no SQL and no HTTP.

mod args;
mod ask;
mod backup;
mod dead_letters;
mod doctor;
mod failure;
mod gc;
mod image;
mod key;
mod migrate;
mod output;
mod picture;
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
use output::{Console, wants_colour};

impl Arguments {
    /// The settings of all layers for these words, read in the working directory.
    ///
    /// # Errors
    /// The exit code, after people were told on stderr what is wrong.
    pub fn settings(&self) -> Result<Settings, ExitCode> {
        load(&self.flags()).map_err(|error| Failure::from(error).report().into())
    }

    /// How logs are written while these words are run.
    pub fn telemetry(&self, settings: &Settings) -> telemetry::Config {
        let terminal = io::stderr().is_terminal();
        let json = match settings.log_format {
            LogFormat::Auto => !terminal,
            LogFormat::Pretty => false,
            LogFormat::Json => true,
        };
        // Who lists products wants to read products, not that a database was opened.
        let unsaid = settings.source("log") == &Source::Default && !self.is_service();
        let pretty = if unsaid {
            telemetry::Format::Notices
        } else {
            telemetry::Format::Pretty { colour: wants_colour(self.global.color, terminal) }
        };
        telemetry::Config {
            filter: if unsaid { "warn,sqlx=error,lapin=off".into() } else { settings.log.clone() },
            format: if json { telemetry::Format::Json } else { pretty },
        }
    }
}

/// Reads the settings of all layers in the working directory, with these words on top.
fn load(flags: &config::Flags) -> Result<Settings, config::Error> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    config::load(flags, Path::new("."), environment)
}

/// Runs the command to its end and tells people on stderr if it failed. The runtime is made here and not in the binary,
/// which would otherwise compile every async function a second time.
pub fn run(arguments: Arguments, settings: Settings) -> ExitCode {
    let mut console = Console::new(&arguments.global);
    let flags = arguments.flags();
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Box::pin(dispatch(arguments.command, (flags, settings), &mut console))),
        Err(error) => Err(Failure::because(Exit::Failed, error).context("the threads cannot be started")),
    };
    // What a failed command had found before is written all the same.
    let flushed = console.flush().map_err(Failure::from);
    match outcome.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}

/// The flags, and the settings of all layers with them.
type Given = (config::Flags, Settings);

async fn dispatch(command: Command, (flags, settings): Given, console: &mut Console) -> Result<Exit, Failure> {
    const UNCHANGED: &str = "the same command begins anew";
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
            let hint = "what was removed was of no use; the same command goes on";
            let work = async { gc::run(dry_run, &open(settings, access).await?, console).await };
            Box::pin(signals::unless_stopped(&stop, hint, work)).await
        }
        Command::Backup(command) => {
            let hint = "a backup from before holds still; the same command begins anew and copies no blob twice";
            let work = async { backup::save(&command, settings, console).await };
            Box::pin(signals::unless_stopped(&stop, hint, work)).await
        }
        Command::Restore(command) => {
            let hint = "no row was stored unless all were; the same command begins anew";
            let work = backup::restore(&command, settings, console);
            Box::pin(signals::unless_stopped(&stop, hint, work)).await
        }
        Command::Migrate(command) => {
            let hint = "`pm migrate status` shows how far it came; the same command goes on";
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
    // Images of this machine may come from strangers as well.
    Ok(Box::pin(App::open(settings, access)).await?.isolated_by(sandbox::own_program()))
}

/// How a command ends that cannot open the installation.
fn exit_of(error: &app::Error) -> Exit {
    match error {
        app::Error::NoCatalogue { .. } => Exit::Unreachable,
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
            app::Error::NoCatalogue { .. } => {
                Some("`pm serve` and `pm migrate up` make one; PM_DATA_DIR or DATABASE_URL says where another one is")
            }
            app::Error::OldSchema { .. } => {
                Some("`pm migrate up` brings it up to date; with PM_AUTO_MIGRATE=true `pm serve` does so at its start")
            }
            app::Error::NewSchema { .. } => Some(
                "install that version here as well; `pm migrate status` lists the steps that this one does not know",
            ),
            app::Error::Database(db::Error::NewerSchema(_)) => Some(
                "only a version of pm that knows these steps may change the schema: run the command with that version",
            ),
            app::Error::ForeignStore { .. } => Some(
                "run pm where its blobs are, or set PM_STORAGE_URL to them; after they were moved without their file \
                 `installation.json`, or lost, run one command with PM_STORAGE_ADOPT=true. The store of another \
                 installation that is gone for good can be taken so once that file is deleted",
            ),
            app::Error::CopiedDatabase { .. } => Some(
                "for a copy, copy the store as well, set PM_STORAGE_URL to it, and run one command with \
                 PM_STORAGE_ADOPT=true. After a move, when the original is stopped for good, run one command with \
                 PM_STORAGE_ADOPT=true",
            ),
            app::Error::Setting(_)
            | app::Error::Tls(_)
            | app::Error::DataDirectory { .. }
            | app::Error::Database(db::Error::Misconfigured(_)) => {
                Some("`pm config` shows every setting and where it is set")
            }
            app::Error::ReplacedDatabase { .. } => Some("start it again; it opens the new file"),
            app::Error::Database(error) if failure::database_hint(error).is_some() => failure::database_hint(error),
            error if error.is_transient() => Some("`pm config` shows which address is used and where it is set"),
            _ => None,
        };
        let failure = Self::because(exit_of(&error), error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
