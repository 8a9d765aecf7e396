//! SIGHUP for `pm serve` and `pm worker`: reads the log filter and the certificate again. What cannot be used changes nothing.

use tracing::Level;

use super::load;
use crate::{
    config::{self, Flags, Settings},
    stop::Reload,
    telemetry,
};

/// Reads the settings again at each SIGHUP from now on; the answer is asked at each as well.
///
/// Without this the signal would end the process.
pub(super) fn listen(flags: Flags, settings: Settings) -> Reload {
    let reload = Reload::default();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};

        let asked = reload.clone();
        match signal(SignalKind::hangup()) {
            Ok(mut hangups) => {
                tokio::spawn(async move {
                    let mut settings = settings;
                    while hangups.recv().await.is_some() {
                        settings = read_again(&flags, settings);
                        asked.request();
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "SIGHUP cannot be listened for; it ends the process"),
        }
    }
    #[cfg(not(unix))]
    let _ = (flags, settings);
    reload
}

/// Uses the log filter of the settings as they are now, and says what of the rest needs a new start; returns the settings
/// that the next signal compares with.
fn read_again(flags: &Flags, old: Settings) -> Settings {
    let new = match load(flags) {
        Ok(new) => new,
        Err(error) => {
            refuse(&error);
            return old;
        }
    };
    use_filter(&old.log, &new.log);
    let later = needing_a_start(&old, &new);
    if !later.is_empty() {
        let settings = later.join(", ");
        tracing::info!(settings, "SIGHUP: these settings have changed and are used from the next start on");
    }
    new
}

fn refuse(error: &config::Error) {
    tracing::error!(%error, "SIGHUP: the settings cannot be used; the log filter stays as it is");
}

fn use_filter(old: &str, new: &str) {
    if old == new {
        return tracing::info!(filter = new, "SIGHUP: the log filter is the same");
    }
    // Whichever of the two filters lets such a line through is to show it.
    let shown = tracing::enabled!(Level::INFO);
    if shown {
        tracing::info!(filter = new, old, "SIGHUP: the log filter changes");
    }
    match telemetry::set_filter(new) {
        Ok(()) if !shown => tracing::info!(filter = new, old, "SIGHUP: the log filter has changed"),
        Ok(()) => {}
        Err(reason) => tracing::error!(filter = new, reason, "SIGHUP: the log filter stays as it is"),
    }
}

/// The names of the settings that differ and are read at the start alone.
fn needing_a_start(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let pairs = old.entries().into_iter().zip(new.entries());
    let changed = pairs.filter(|((_, before, _), (name, now, _))| before != now && *name != "log");
    changed.map(|((name, ..), _)| name).collect()
}
