//! Arguments of `pm key`.

use clap::Subcommand;

/// The commands of `pm key`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Key {
    /// Create a key; it is shown only once
    Create {
        /// The user whose products the key may change
        #[arg(long, value_name = "ID")]
        user_id: String,
        /// A permission: products:read, products:write or admin; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// How long the key is valid, such as 90d [default: no limit]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// A name for the key
        #[arg(long)]
        name: Option<String>,
    },
    /// List all keys, including revoked and expired ones; the keys themselves are never shown
    List,
    /// Revoke a key; all servers reject it within 5 s
    Revoke {
        /// The key's id
        id: i64,
    },
}
