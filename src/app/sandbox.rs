//! Derives decoder isolation and image limits from the settings.

use std::path::PathBuf;

use crate::{
    config::Settings,
    imaging::Limits,
    isolation::{Config, Policy},
};

/// Returns the configuration for at most `processes` decoder processes of `program`.
pub fn isolation_of(settings: &Settings, program: Option<PathBuf>, processes: usize) -> Config {
    Config {
        program: program.filter(|_| settings.isolation != Policy::Off),
        time_limit: settings.image_timeout,
        wall_clock_limit: settings.image_timeout * 3,
        needs_layers: settings.isolation == Policy::Require,
        processes,
    }
}

/// Returns the limits that are checked before an image is decoded.
pub(super) fn limits(settings: &Settings) -> Limits {
    Limits { max_pixels: settings.image_max_pixels, max_memory: settings.image_memory, ..Limits::default() }
}
