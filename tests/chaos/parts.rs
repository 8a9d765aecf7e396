//! Parts of experiments that have to be processes of their own: what is killed in the midst of a write, and what has to be
//! alone in a network. This program starts itself for them, told by its environment which part it is.

use std::process::ExitCode;

use crate::{
    experiments::{p11, p18},
    processes::Spec,
    stage::Stage,
};

/// Tells a copy of this program which part it is.
const ROLE: &str = "CHAOS_PART";

/// What a copy of this program may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The inside of the network of P11.
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

    /// How to start it, in the stage's directory and environment; `name` is its log's.
    ///
    /// # Errors
    /// If this program cannot be found.
    pub fn spec(self, stage: &Stage, name: &str) -> anyhow::Result<Spec> {
        let own = Spec { program: std::env::current_exe()?, ..stage.spec(name) };
        Ok(own.variable(ROLE, self.name()))
    }
}

/// Runs as a part if this process was started as one.
pub fn ran_as_part() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let part = [Part::Network, Part::Writer].into_iter().find(|part| part.name() == role)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    let outcome = runtime.block_on(async {
        match part {
            Part::Network => p11::inside().await,
            Part::Writer => p18::write().await,
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
