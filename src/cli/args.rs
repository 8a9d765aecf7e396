//! The shape of the command line, for clap. What the values mean is checked by whoever uses them.

mod image;
mod keep;
mod key;
mod product;
mod queue;
mod serve;
mod webhook;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub(super) use self::{
    image::{Image, ImageLink},
    keep::{Backup, Doctor, Restore, Secrets},
    key::Key,
    product::{Product, ProductAdd, ProductList, ProductUpdate},
    queue::{Dead, Queue},
    serve::Serve,
    webhook::Webhook,
};
use crate::{app::Access, config::Flags};

/// A product catalogue with asynchronous image processing.
#[derive(Debug, Parser)]
#[command(name = "pm", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or settings, 3 not found, 4 partly done, 5 a component is \
    unreachable, 130 interrupted."
)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Read settings from FILE in place of pm.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// sqlite://FILE or postgres://…
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// The shared cache: redis://…
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
    /// The message broker: amqp://…
    #[arg(long, global = true, value_name = "URL")]
    rabbitmq_url: Option<String>,
    /// The store of pictures: file://DIRECTORY or s3://BUCKET/PREFIX
    #[arg(long, global = true, value_name = "URL")]
    storage_url: Option<String>,
    /// Where pm keeps what it keeps on disk
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// How data is written to stdout
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(super) output: Format,
    /// Write ids only, and nothing about progress
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(super) color: Color,
    /// How log lines look on stderr
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["auto", "pretty", "json"])]
    log_format: Option<String>,
}

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// The API's own JSON
    Json,
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values with a header
    Csv,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve the HTTP API and work on pictures
    Serve(Serve),
    /// Work on pictures only; as many processes on as many machines as wanted
    Worker(Worker),
    /// Bring the database's schema up or down
    #[command(subcommand)]
    Migrate(Migrate),
    /// Users
    #[command(subcommand)]
    User(User),
    /// API keys for scripts
    #[command(subcommand)]
    Key(Key),
    /// Products
    #[command(subcommand)]
    Product(Product),
    /// Single pictures
    #[command(subcommand)]
    Image(Image),
    /// Work on pictures again
    Reprocess(Reprocess),
    /// Jobs that wait, and jobs that failed for good
    #[command(subcommand)]
    Queue(Queue),
    /// Write the API's description, OpenAPI 3.1
    Openapi,
    /// Addresses that are told of events
    #[command(subcommand)]
    Webhook(Webhook),
    /// Show the effective settings, each with where it comes from
    Config,
    /// Say whether every part of the set-up answers and its data are whole
    Doctor(Doctor),
    /// Remove pictures' files that nothing refers to any more
    Gc {
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Copy the whole catalogue into a directory, while everything is running
    Backup(Backup),
    /// Put a backup into an empty installation, whatever engines it has
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(super) struct Worker {
    /// Pictures worked on at a time; as many as cores unless set
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) concurrency: Option<u16>,
    /// Answer /healthz, /readyz and /metrics here; nowhere unless set
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Apply every step that is missing
    Up,
    /// Take the last steps back; what their tables hold is lost
    Down {
        /// How many steps
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show every step and whether the database has it
    Status,
    /// Delete everything and apply every step
    Fresh {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a user
    Add {
        /// 1 to 64 characters; made if it is missing
        #[arg(long)]
        id: Option<String>,
        /// What people call them
        #[arg(long)]
        name: Option<String>,
        /// Where to write to
        #[arg(long)]
        email: Option<String>,
    },
    /// List users by id
    List(Paging),
    /// Show one user
    Get {
        /// The user's id
        id: String,
    },
}

/// Which part of a list is shown.
#[derive(Debug, Args)]
pub(super) struct Paging {
    /// Rows a page, 1 to 100 [default: 20]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) limit: Option<String>,
    /// Begin where the page before ended
    #[arg(long, value_name = "CURSOR", allow_hyphen_values = true)]
    pub(super) cursor: Option<String>,
    /// Every page from there on
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Reprocess {
    /// Only this product's pictures; may be repeated
    #[arg(long = "product", value_name = "ID")]
    pub(super) products: Vec<i64>,
    /// Only this user's pictures
    #[arg(long, value_name = "ID")]
    pub(super) user_id: Option<String>,
    /// Which pictures
    #[arg(long, value_enum, default_value_t)]
    pub(super) status: Which,
    /// Make only this preset and keep the others; may be repeated
    #[arg(long = "preset", value_name = "NAME")]
    pub(super) presets: Vec<String>,
    /// Only pictures changed since: 2026-01-31T12:00:00Z, or 2h or 3d ago
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Say how many, and change nothing
    #[arg(long, conflicts_with_all = ["wait", "yes"])]
    pub(super) dry_run: bool,
    /// Wait until all of them are done
    #[arg(long)]
    pub(super) wait: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

/// Pictures by their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// Those that failed
    #[default]
    Failed,
    /// Those that are ready
    Ready,
    /// Both
    All,
}

impl Arguments {
    /// The settings among the flags.
    pub fn flags(&self) -> Flags {
        let global = &self.global;
        let mut flags = Flags {
            config: global.config.clone(),
            data_dir: global.data_dir.clone(),
            database_url: global.database_url.clone(),
            redis_url: global.redis_url.clone(),
            rabbitmq_url: global.rabbitmq_url.clone(),
            storage_url: global.storage_url.clone(),
            log: log_filter(global.verbose).map(str::to_owned),
            log_format: global.log_format.clone(),
            ..Flags::default()
        };
        match &self.command {
            Command::Serve(serve) => {
                serve.set(&mut flags);
            }
            Command::Worker(worker) => {
                flags.workers = worker.concurrency.map(|concurrency| concurrency.to_string());
                flags.worker_listen = worker.listen.clone();
            }
            _ => {}
        }
        flags
    }

    /// Whether the command runs until it is stopped.
    pub(super) fn is_service(&self) -> bool {
        matches!(self.command, Command::Serve(_) | Command::Worker(_))
    }
}

impl Command {
    /// What the command may do where there is no catalogue yet: only what adds something makes one.
    pub(super) const fn access(&self) -> Access {
        match self {
            Self::Serve(_) => Access::Serve,
            Self::User(User::Add { .. })
            | Self::Key(Key::Create { .. })
            | Self::Product(Product::Add(_))
            | Self::Webhook(Webhook::Add { .. })
            | Self::Restore(_) => Access::Create,
            _ => Access::Existing,
        }
    }
}

impl Paging {
    /// The rows a page: as said, or the most there can be where every page is wanted.
    pub(super) fn page_size(&self) -> Option<&str> {
        self.limit.as_deref().or(self.all.then_some("100"))
    }
}

fn log_filter(verbose: u8) -> Option<&'static str> {
    match verbose {
        0 => None,
        1 => Some("info,pm=debug"),
        _ => Some("debug,pm=trace"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_become_settings() {
        let flags = |words: &[&str]| Arguments::try_parse_from(words).expect("right words").flags();
        let serve = flags(&["pm", "serve", "--listen", "127.0.0.1:0", "--no-worker", "-v", "--data-dir", "d"]);
        assert_eq!((serve.listen.as_deref(), serve.workers.as_deref()), (Some("127.0.0.1:0"), Some("0")));
        assert_eq!((serve.log.as_deref(), serve.data_dir.as_deref()), (Some("info,pm=debug"), Some("d")));
        assert_eq!(flags(&["pm", "worker", "--concurrency", "3"]).workers.as_deref(), Some("3"));
        assert!(Arguments::try_parse_from(["pm", "serve", "--no-worker", "--workers", "2"]).is_err());
    }

    #[test]
    fn values_that_begin_with_a_hyphen_are_values() {
        let words = ["pm", "product", "list", "--sort", "-product_price", "--min-price", "-1"];
        let arguments = Arguments::try_parse_from(words).expect("right words");
        let Command::Product(Product::List(list)) = arguments.command else { panic!("another command") };
        assert_eq!((list.sort.as_deref(), list.min_price.as_deref()), (Some("-product_price"), Some("-1")));
    }
}
