//! Handles SIGHUP in `pm serve` and `pm worker`: reloads the log filter and the certificate.
//!
//! An invalid setting or certificate changes nothing.

use tracing::Level;

use super::load;
use crate::{
    config::{self, Flags, Settings},
    reload::Reload,
    telemetry,
};

/// Reloads the settings at each SIGHUP, and triggers the returned [`Reload`].
///
/// Without this handler the signal would end the process.
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
            Err(error) => tracing::warn!(%error, "cannot handle SIGHUP; the signal will end the process"),
        }
    }
    #[cfg(not(unix))]
    let _ = (flags, settings);
    reload
}

/// Applies the current log filter, and logs the changed settings that need a restart.
///
/// Returns the settings to compare with at the next signal.
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
    // Log the line once, under whichever filter permits it.
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

/// Returns the names of changed settings that need a restart.
fn needing_a_start(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let pairs = old.entries().into_iter().zip(new.entries());
    let changed = pairs.filter(|((_, before, _), (name, now, _))| before != now && *name != "log");
    changed.map(|((name, ..), _)| name).collect()
}
