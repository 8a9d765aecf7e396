//! Where strangers' bytes are looked at: each picture in a process of its own, which is given the bytes and nothing else
//! and may do nothing but compute. Whatever a decoder does, it costs its own picture an attempt and nobody else anything.
//!
//! `pool` is the side of the worker, `decoder` the side of the processes, `walls` what they are locked in by. It knows
//! nothing of jobs, and it stores nothing.

mod budget;
#[cfg(unix)]
mod decoder;
#[cfg(unix)]
mod descriptors;
mod error;
#[cfg(all(unix, debug_assertions))]
mod fault;
#[cfg(unix)]
mod fork;
#[cfg(unix)]
mod message;
mod policy;
#[cfg(unix)]
mod pool;
mod walls;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;

pub use budget::{Budget, Charge};
#[cfg(unix)]
pub use decoder::{ARGUMENT, run as run_decoder};
pub use error::Error;
pub use policy::Policy;
pub use walls::{Wall, Walls};

use crate::imaging::{self, Limits, Preset, Processed, SourceFormat};

/// Where pictures are decoded, and how long one may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The program that becomes a decoder when its only argument is [`ARGUMENT`]; `None` decodes on threads of this
    /// process, where a picture that brings its decoder down brings the process down.
    pub program: Option<PathBuf>,
    /// Processor time of one picture.
    pub time_limit: Duration,
    /// How long one may take by the clock: longer, since a machine with other work gives its processor time only slowly.
    pub patience: Duration,
    /// Whether nothing is decoded unless every wall stands.
    pub needs_walls: bool,
    /// Processes there may be at a time.
    pub processes: usize,
}

/// Whatever can decode pictures; cheap to clone.
#[derive(Clone, Debug)]
pub enum Decoders {
    /// Threads of this process.
    Threads,
    /// A process for each picture.
    #[cfg(unix)]
    Processes(pool::Pool),
}

/// A picture, and what is to be made of it.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The file.
    pub source: Bytes,
    /// What is to be made.
    pub presets: Vec<Preset>,
    /// What is refused.
    pub limits: Limits,
}

impl Decoders {
    /// Decoders as `config` wants them; where the system has no processes of that kind, threads. Nothing is started yet.
    pub fn new(config: &Config) -> Self {
        match config.program.clone() {
            #[cfg(unix)]
            Some(program) => Self::Processes(pool::Pool::new(program, config)),
            _ => Self::Threads,
        }
    }

    /// `processes` or `threads`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Threads => "threads",
            #[cfg(unix)]
            Self::Processes(_) => "processes",
        }
    }

    /// Whether a decoder that dies leaves this process alone.
    pub const fn are_apart(&self) -> bool {
        !matches!(self, Self::Threads)
    }

    /// As [`imaging::memory_needed`].
    ///
    /// # Errors
    /// [`Error::Picture`] as there; the others if the decoder could not do its work.
    pub async fn memory_needed(&self, picture: &Picture) -> Result<u64, Error> {
        match self {
            Self::Threads => {
                let Picture { source, presets, limits } = picture.clone();
                let work = move || imaging::memory_needed(&source, &presets, &limits);
                Ok(tokio::task::spawn_blocking(work).await.map_err(|_| disorder())??)
            }
            #[cfg(unix)]
            Self::Processes(pool) => pool.memory_needed(picture).await,
        }
    }

    /// The kind of image by [`imaging::probe`].
    ///
    /// # Errors
    /// As for [`memory_needed`](Self::memory_needed).
    pub async fn probe(&self, picture: &Picture) -> Result<SourceFormat, Error> {
        match self {
            Self::Threads => {
                let Picture { source, limits, .. } = picture.clone();
                let work = move || imaging::probe(&source, &limits).map(|probe| probe.format);
                Ok(tokio::task::spawn_blocking(work).await.map_err(|_| disorder())??)
            }
            #[cfg(unix)]
            Self::Processes(pool) => pool.probe(picture).await,
        }
    }

    /// As [`imaging::process`]; `needed` is what [`memory_needed`](Self::memory_needed) has said. `held` is dropped when
    /// the work is over, also where nobody waits for it any more: a thread cannot be stopped, a process is.
    ///
    /// # Errors
    /// [`Error::Picture`] as there; the others if the decoder could not do its work.
    pub async fn process<H: Send + 'static>(&self, picture: Picture, needed: u64, held: H) -> Result<Processed, Error> {
        match self {
            Self::Threads => {
                let thread = tokio::task::spawn_blocking(move || {
                    let _held = held;
                    imaging::process(&picture.source, &picture.presets, &picture.limits)
                });
                Ok(thread.await.map_err(|_| disorder())??)
            }
            #[cfg(unix)]
            Self::Processes(pool) => {
                let _held = held;
                pool.process(&picture, needed).await
            }
        }
    }

    /// What a decoder is locked in by, tried out by one; nothing stands around threads.
    ///
    /// # Errors
    /// If no decoder can be started.
    pub async fn walls(&self) -> Result<Walls, Error> {
        match self {
            Self::Threads => Ok(Walls::default()),
            #[cfg(unix)]
            Self::Processes(pool) => pool.walls().await,
        }
    }
}

fn disorder() -> Error {
    Error::Picture(imaging::Error::Undecodable { reason: "its decoder gave up in disorder".into() })
}
