//! Arguments of `pm webhook`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Paging;

/// The commands of `pm webhook`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Webhook {
    /// Register a webhook; its signing secret is shown only once
    Add {
        /// The URL that receives the messages
        url: String,
        /// Only events of this type, such as image.ready; may be repeated
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
        /// The signing secret: `whsec_` and base64 [default: generated]
        #[arg(long, conflicts_with = "secret_file")]
        secret: Option<String>,
        /// Read the secret from FILE, so that it does not appear in the process list
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List webhooks and their state
    List,
    /// Show a webhook
    Get {
        /// The webhook's id
        id: i64,
    },
    /// Delete a webhook and its delivery history
    Delete {
        /// The webhook's id
        id: i64,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Enable a disabled webhook
    Enable {
        /// The webhook's id
        id: i64,
    },
    /// List the deliveries of a webhook, newest first
    Deliveries {
        /// The webhook's id
        id: i64,
        #[command(flatten)]
        paging: Paging,
    },
    /// Send a message again
    Retry {
        /// The webhook's id
        id: i64,
        /// The delivery's id
        delivery: i64,
    },
}
