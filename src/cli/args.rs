//! Defines the command line for clap. The commands validate the values.

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

/// A product catalog with asynchronous image processing.
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
    /// The image store: file://DIRECTORY or s3://BUCKET/PREFIX
    #[arg(long, global = true, value_name = "URL")]
    storage_url: Option<String>,
    /// The directory for local data: database, images and keys
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Format of data on stdout
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(super) output: Format,
    /// Print ids only, without progress
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Log more; repeat for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// When to use colors
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(super) color: Color,
    /// Format of log lines on stderr
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["auto", "pretty", "json"])]
    log_format: Option<String>,
}

/// The output format of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// The API's own JSON
    Json,
    /// One JSON object per line
    Ndjson,
    /// Comma-separated values with a header
    Csv,
}

/// When the output has colors.
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
    /// Serve the HTTP API and process images
    Serve(Serve),
    /// Process images; run any number of workers on any number of machines
    Worker(Worker),
    /// Migrate the database schema
    #[command(subcommand)]
    Migrate(Migrate),
    /// Manage users
    #[command(subcommand)]
    User(User),
    /// Manage API keys
    #[command(subcommand)]
    Key(Key),
    /// Manage products
    #[command(subcommand)]
    Product(Product),
    /// Sign image URLs
    #[command(subcommand)]
    Image(Image),
    /// Process images again
    Reprocess(Reprocess),
    /// Inspect the job queue and manage dead letters
    #[command(subcommand)]
    Queue(Queue),
    /// Print the OpenAPI 3.1 document of the API
    Openapi,
    /// Manage webhooks and their deliveries
    #[command(subcommand)]
    Webhook(Webhook),
    /// Show the effective settings and the source of each
    Config,
    /// Check all components and the integrity of the data
    Doctor(Doctor),
    /// Delete image files that nothing refers to
    Gc {
        /// Show what would be deleted, but delete nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Back up the catalog to a directory, while pm is running
    Backup(Backup),
    /// Restore a backup into an empty installation with any engines
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(super) struct Worker {
    /// Images processed at a time [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) concurrency: Option<u16>,
    /// Serve /healthz, /readyz and /metrics on this address [default: off]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Apply all pending migrations
    Up,
    /// Revert the last migrations; the data in their tables is lost
    Down {
        /// How many migrations
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Show all migrations and whether they are applied
    Status,
    /// Delete everything and apply all migrations
    Fresh {
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a user
    Add {
        /// 1 to 64 characters [default: generated]
        #[arg(long)]
        id: Option<String>,
        /// The user's name
        #[arg(long)]
        name: Option<String>,
        /// The user's email address
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

/// The page of a list.
#[derive(Debug, Args)]
pub(super) struct Paging {
    /// Rows per page, 1 to 100 [default: 20]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) limit: Option<String>,
    /// Start after the previous page
    #[arg(long, value_name = "CURSOR", allow_hyphen_values = true)]
    pub(super) cursor: Option<String>,
    /// Show all remaining pages
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Reprocess {
    /// Only this product's images; may be repeated
    #[arg(long = "product", value_name = "ID")]
    pub(super) products: Vec<i64>,
    /// Only this user's images
    #[arg(long, value_name = "ID")]
    pub(super) user_id: Option<String>,
    /// Only images with this status
    #[arg(long, value_enum, default_value_t)]
    pub(super) status: Which,
    /// Render only this preset and keep the others; may be repeated
    #[arg(long = "preset", value_name = "NAME")]
    pub(super) presets: Vec<String>,
    /// Only images changed since a time (2026-01-31T12:00:00Z) or within a duration (2h, 3d)
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Show how many images match, but change nothing
    #[arg(long, conflicts_with_all = ["wait", "yes"])]
    pub(super) dry_run: bool,
    /// Wait until all images are ready or failed
    #[arg(long)]
    pub(super) wait: bool,
    /// Skip the confirmation
    #[arg(long)]
    pub(super) yes: bool,
}

/// The status of the images to process again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// Failed images
    #[default]
    Failed,
    /// Ready images
    Ready,
    /// Both
    All,
}

impl Arguments {
    /// Returns the settings given as flags.
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

    /// Returns whether the command runs until it is stopped.
    pub(super) fn is_service(&self) -> bool {
        matches!(self.command, Command::Serve(_) | Command::Worker(_))
    }
}

impl Command {
    /// Returns whether the command may create or migrate the catalog. Only commands that add data create one.
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
    /// Returns the rows per page: `--limit`, or the maximum with `--all`.
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
    fn every_flag_of_a_setting_exists() {
        let program = Arguments::command();
        for (flag, command) in crate::config::flags() {
            let command = command.map_or(&program, |name| program.find_subcommand(name).expect(name));
            let long = |argument: &clap::Arg| argument.get_long() == flag.strip_prefix("--");
            assert!(command.get_arguments().any(long), "{} has no {flag}", command.get_name());
        }
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
