//! Where and how images are looked at, by the settings.

use std::path::PathBuf;

use crate::{
    config::Settings,
    imaging::Limits,
    isolation::{Config, Policy},
};

/// How decoders are isolated that become of `program`, at most `processes` at a time.
pub fn isolation_of(settings: &Settings, program: Option<PathBuf>, processes: usize) -> Config {
    Config {
        program: program.filter(|_| settings.isolation != Policy::Off),
        time_limit: settings.image_timeout,
        patience: settings.image_timeout * 3,
        needs_walls: settings.isolation == Policy::Require,
        processes,
    }
}

/// What is refused before it is decoded.
pub(super) fn limits(settings: &Settings) -> Limits {
    Limits { max_pixels: settings.image_max_pixels, max_memory: settings.image_memory, ..Limits::default() }
}
