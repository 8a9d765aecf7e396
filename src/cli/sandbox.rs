//! Finds out which sandbox layers this system has, before anything is decoded, and reports those that are missing.

use std::path::PathBuf;

use super::failure::{Exit, Failure};
use crate::{
    app,
    config::Settings,
    isolation::{Decoders, Policy, Wall, Walls},
};

/// Tries the walls, warns of those that are missing, and answers in a few words what stands.
///
/// # Errors
/// A refusal if a wall is missing and `PM_ISOLATION=require` asks for all.
pub(super) async fn tried(settings: &Settings) -> Result<String, Failure> {
    let policy = settings.isolation;
    if policy == Policy::Off {
        return Ok(policy.to_string());
    }
    let decoders = Decoders::new(&app::isolation_of(settings, Some(own_program()), 1));
    let required = policy == Policy::Require;
    match decoders.walls().await {
        Ok(walls) if walls.are_complete() => Ok(policy.to_string()),
        Ok(walls) if required => Err(refusal(&walls)),
        Ok(walls) => {
            tracing::warn!("decoders run without {}", without(&walls, |wall| wall.without));
            let names: Vec<_> = walls.missing().iter().map(|wall| wall.name).collect();
            Ok(format!("{policy} without {}", names.join(", ")))
        }
        Err(error) if required => {
            Err(Failure::because(Exit::Usage, error).context("PM_ISOLATION=require, and no decoder can be tried"))
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "images cannot be decoded");
            Ok(format!("{policy}, untried"))
        }
    }
}

/// This program, whose processes decode pictures. On Linux it is the same program even where its file has been replaced by
/// a newer one since.
pub(super) fn own_program() -> PathBuf {
    if cfg!(target_os = "linux") {
        return PathBuf::from("/proc/self/exe");
    }
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("pm"))
}

fn refusal(walls: &Walls) -> Failure {
    let missing = without(walls, |wall| wall.takes);
    Failure::new(
        Exit::Usage,
        format!("PM_ISOLATION=require, and this system lacks sandbox layers of decoders: {missing}"),
    )
    .hint("PM_ISOLATION=best-effort starts without; `pm doctor` says what that means")
}

/// Which walls stand and which do not, what that means, and what it takes.
pub(super) fn detail(policy: Policy, walls: &Walls) -> String {
    let standing = walls.standing().join(", ");
    if walls.are_complete() {
        return format!("{policy}; sandbox layers: {standing}; none is missing");
    }
    let (means, takes) = (without(walls, |wall| wall.without), without(walls, |wall| wall.takes));
    format!("{policy}; sandbox layers: {standing}; missing: {means}; it takes {takes}")
}

/// The walls that are missing, each with a remark.
fn without(walls: &Walls, remark: impl Fn(&Wall) -> &'static str) -> String {
    let missing = walls.missing();
    missing.iter().map(|wall| format!("{} ({})", wall.name, remark(wall))).collect::<Vec<_>>().join(", ")
}
