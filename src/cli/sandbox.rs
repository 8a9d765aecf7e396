//! Checks the sandbox layers of this system at start, and reports missing ones.

use std::path::PathBuf;

use super::failure::{Exit, Failure};
use crate::{
    app,
    config::Settings,
    isolation::{Decoders, Policy, SandboxLayer, SandboxLayers},
};

/// Checks the sandbox layers, warns about missing ones, and returns a summary for the log.
///
/// # Errors
/// If a layer is missing with `PM_ISOLATION=require`.
pub(super) async fn tried(settings: &Settings) -> Result<String, Failure> {
    let policy = settings.isolation;
    if policy == Policy::Off {
        return Ok(policy.to_string());
    }
    let decoders = Decoders::new(&app::isolation_of(settings, Some(own_program()), 1));
    let required = policy == Policy::Require;
    match decoders.layers().await {
        Ok(layers) if layers.are_complete() => Ok(policy.to_string()),
        Ok(layers) if required => Err(refusal(&layers)),
        Ok(layers) => {
            tracing::warn!("decoders run without {}", without(&layers, |layer| layer.without));
            let names: Vec<_> = layers.missing().iter().map(|layer| layer.name).collect();
            Ok(format!("{policy} without {}", names.join(", ")))
        }
        Err(error) if required => {
            Err(Failure::because(Exit::Usage, error).context("PM_ISOLATION=require, but no decoder can be started"))
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot start a decoder to decode images");
            Ok(format!("{policy}, untried"))
        }
    }
}

/// Returns the path of this program, which also runs as the decoder.
///
/// On Linux the path refers to the running program, even if a newer file replaced it on disk.
pub(super) fn own_program() -> PathBuf {
    if cfg!(target_os = "linux") {
        return PathBuf::from("/proc/self/exe");
    }
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("pm"))
}

fn refusal(layers: &SandboxLayers) -> Failure {
    let missing = without(layers, |layer| layer.takes);
    Failure::new(
        Exit::Usage,
        format!("PM_ISOLATION=require, but this system lacks sandbox layers of decoders: {missing}"),
    )
    .hint("PM_ISOLATION=best-effort starts without them; `pm doctor` shows the consequences")
}

/// Describes active and missing layers, the consequences, and the requirements.
pub(super) fn detail(policy: Policy, layers: &SandboxLayers) -> String {
    let standing = layers.standing().join(", ");
    if layers.are_complete() {
        return format!("{policy}; sandbox layers: {standing}; none is missing");
    }
    let (means, takes) = (without(layers, |layer| layer.without), without(layers, |layer| layer.takes));
    format!("{policy}; sandbox layers: {standing}; missing: {means}; required: {takes}")
}

/// Lists the missing layers, each with a remark.
fn without(layers: &SandboxLayers, remark: impl Fn(&SandboxLayer) -> &'static str) -> String {
    let missing = layers.missing();
    missing.iter().map(|layer| format!("{} ({})", layer.name, remark(layer))).collect::<Vec<_>>().join(", ")
}
