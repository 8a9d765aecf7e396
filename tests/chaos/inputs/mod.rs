//! What experiments feed to the program, made by code, and where they write more than a line about it.

pub mod broken;
pub mod forbidden;
pub mod naughty;
pub mod trap;

use std::{path::PathBuf, sync::OnceLock};

/// The file that an experiment with files writes each one's outcome to, if one was named on the command line.
pub static TABLE: OnceLock<PathBuf> = OnceLock::new();
