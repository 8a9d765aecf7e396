//! Parts of experiments that need a process of their own: one is killed during a write, one is alone in its network.
//! This program starts a copy of itself, and an environment variable names the part.

use std::process::ExitCode;

use crate::{
    experiments::{blobs_are_never_torn, forbidden_addresses_are_refused},
    processes::Spec,
    stage::Stage,
};

/// Environment variable that names the part.
const ROLE: &str = "CHAOS_PART";

/// The part that a copy of this program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The isolated network of P11.
    Network,
    /// The writer of P18.
    Writer,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Writer => "writer",
        }
    }

    /// Returns the program of the part, in the stage's directory and environment, with the log `name`.
    pub fn spec(self, stage: &Stage, name: &str) -> anyhow::Result<Spec> {
        let own = Spec { program: std::env::current_exe()?, ..stage.spec(name) };
        Ok(own.variable(ROLE, self.name()))
    }
}

/// Runs the part if this process was started as one.
pub fn ran_as_part() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let part = [Part::Network, Part::Writer].into_iter().find(|part| part.name() == role)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    let outcome = runtime.block_on(async {
        match part {
            Part::Network => forbidden_addresses_are_refused::inside().await,
            Part::Writer => blobs_are_never_torn::write().await,
        }
    });
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", part.name());
            ExitCode::FAILURE
        }
    })
}
