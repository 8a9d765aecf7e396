//! The words of `pm queue`.

use clap::Subcommand;

use super::Paging;

/// Looking at the queue.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Queue {
    /// Show how full the queue is
    Status,
    /// Jobs that failed for good; lists them unless told otherwise
    #[command(args_conflicts_with_subcommands = true)]
    Dead {
        #[command(subcommand)]
        command: Option<Dead>,
        #[command(flatten)]
        paging: Paging,
    },
}

/// What is done with jobs that failed for good.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Dead {
    /// List them, the latest first
    List(Paging),
    /// Show one with all its attempts
    Show {
        /// The job's number
        id: i64,
    },
    /// Queue them anew, as if they had never run
    Retry {
        /// The jobs' numbers
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
        ids: Vec<i64>,
        /// All there are now
        #[arg(long)]
        all: bool,
    },
    /// Remove all of them; their pictures stay failed
    Purge {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}
