//! `pm doctor`, `pm backup` and `pm restore`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct Doctor {
    /// Do not read the bytes of images
    #[arg(long)]
    pub(in crate::cli) quick: bool,
    /// As JSON, whatever --output says
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Repair what can be repaired, and say what
    #[arg(long)]
    pub(in crate::cli) repair: bool,
    /// Take whole copies of damaged and missing files from this backup
    #[arg(long, value_name = "DIR", requires = "repair")]
    pub(in crate::cli) from: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Backup {
    /// The directory; a second backup into it copies only what is new
    #[arg(value_name = "DIR")]
    pub(in crate::cli) directory: PathBuf,
    /// Read every file that is there already, and mend damaged ones; without it those not read for 30 days
    #[arg(long)]
    pub(in crate::cli) verify: bool,
    /// Replace the backup of another installation
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
    /// Do not ask
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Restore API keys as well; without it they come back revoked
    #[arg(long, conflicts_with = "without_secrets")]
    pub(in crate::cli) with_keys: bool,
    /// Restore what is whole of a damaged backup, and name the rest
    #[arg(long)]
    pub(in crate::cli) allow_missing: bool,
    #[command(flatten)]
    pub(in crate::cli) secrets: Secrets,
}

/// What is done with the secrets of a backup.
#[derive(Debug, Args)]
pub(in crate::cli) struct Secrets {
    /// Read the passphrase of the backup's secrets from FILE in place of PM_BACKUP_PASSPHRASE
    #[arg(long, value_name = "FILE", conflicts_with = "without_secrets")]
    pub(in crate::cli) passphrase_file: Option<PathBuf>,
    /// Leave out webhook secrets, API keys and the keys of signed addresses
    #[arg(long)]
    pub(in crate::cli) without_secrets: bool,
}
