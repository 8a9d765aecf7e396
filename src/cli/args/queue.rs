//! Arguments of `pm queue`.

use clap::Subcommand;

use super::Paging;

/// The commands of `pm queue`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Queue {
    /// Show the number of waiting and running jobs
    Status,
    /// Manage dead letters; lists them by default
    #[command(args_conflicts_with_subcommands = true)]
    Dead {
        #[command(subcommand)]
        command: Option<Dead>,
        #[command(flatten)]
        paging: Paging,
    },
}

/// The commands of `pm queue dead`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Dead {
    /// List dead letters, newest first
    List(Paging),
    /// Show a dead letter and all its attempts
    Show {
        /// The job's id
        id: i64,
    },
    /// Requeue dead letters with a fresh number of attempts
    Retry {
        /// The jobs' ids
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
        ids: Vec<i64>,
        /// All current dead letters
        #[arg(long)]
        all: bool,
    },
    /// Delete all dead letters; their images stay failed
    Purge {
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}
