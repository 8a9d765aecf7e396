//! The words of `pm key`.

use clap::Subcommand;

/// Keys that scripts show instead of an access token.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Key {
    /// Make a key and show it, this once
    Create {
        /// Whose products it may change
        #[arg(long, value_name = "ID")]
        user_id: String,
        /// What it may do: products:read, products:write or admin; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// How long it may be used, such as 90d; for ever unless set
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// What people call it
        #[arg(long)]
        name: Option<String>,
    },
    /// List all keys, also those that are worth nothing any more; never the keys themselves
    List,
    /// Take a key back; within 5 s nobody takes it any more
    Revoke {
        /// The key's number
        id: i64,
    },
}
