//! The words of `pm webhook`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Paging;

/// Addresses that are told of events.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Webhook {
    /// Have an address told of events; its secret is shown this one time only
    Add {
        /// Where messages are posted to
        url: String,
        /// Only events of this type, such as image.ready; may be repeated
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
        /// What messages are signed with, `whsec_` and base64; made unless given
        #[arg(long, conflicts_with = "secret_file")]
        secret: Option<String>,
        /// Read the secret from FILE, so that no list of processes shows it
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List them and how they are
    List,
    /// Show one
    Get {
        /// The webhook's number
        id: i64,
    },
    /// Tell one nothing any more
    Delete {
        /// The webhook's number
        id: i64,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Tell one again that was disabled
    Enable {
        /// The webhook's number
        id: i64,
    },
    /// List what one was or is to be told, the latest first
    Deliveries {
        /// The webhook's number
        id: i64,
        #[command(flatten)]
        paging: Paging,
    },
    /// Send a message again
    Retry {
        /// The webhook's number
        id: i64,
        /// The delivery's number
        delivery: i64,
    },
}
