//! Arguments of `pm doctor`, `pm backup` and `pm restore`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct Doctor {
    /// Skip reading the bytes of images
    #[arg(long)]
    pub(in crate::cli) quick: bool,
    /// Print JSON; overrides --output
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Repair what can be repaired, and report it
    #[arg(long)]
    pub(in crate::cli) repair: bool,
    /// Replace damaged and missing files with intact copies from this backup
    #[arg(long, value_name = "DIR", requires = "repair")]
    pub(in crate::cli) from: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Backup {
    /// The directory; later backups to it copy only new files
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,
    /// Verify all files of the backup and rewrite damaged ones [default: files last verified over 30 days ago]
    #[arg(long)]
    pub(in crate::cli) verify: bool,
    /// Replace a backup of another installation, or one with another passphrase
    #[arg(long)]
    pub(in crate::cli) replace: bool,
    #[command(flatten)]
    pub(in crate::cli) secrets: Secrets,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    /// The directory of the backup
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,
    /// Skip the confirmation
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Restore API keys as active keys; without it they are restored as revoked
    #[arg(long, conflicts_with = "without_secrets")]
    pub(in crate::cli) with_keys: bool,
    /// Restore the intact part of a damaged backup, and list the rest
    #[arg(long)]
    pub(in crate::cli) allow_missing: bool,
    #[command(flatten)]
    pub(in crate::cli) secrets: Secrets,
}

/// How to protect the secrets of a backup.
#[derive(Debug, Args)]
pub(in crate::cli) struct Secrets {
    /// Read the passphrase for the backup's secrets from FILE instead of PM_BACKUP_PASSPHRASE
    #[arg(long, value_name = "FILE", conflicts_with = "without_secrets")]
    pub(in crate::cli) passphrase_file: Option<PathBuf>,
    /// Omit webhook secrets, API keys and the keys that sign variant URLs
    #[arg(long)]
    pub(in crate::cli) without_secrets: bool,
}
