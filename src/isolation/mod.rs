//! Decodes untrusted images, each in a separate sandboxed process.
//!
//! A decoder process receives the bytes of one image and may only compute. If a decoder crashes, the image loses one
//! attempt; other images are not affected.
//!
//! `pool` runs in the worker, `decoder` runs in the decoder processes, `layers` builds the sandbox. This module knows
//! no jobs and stores nothing.

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
mod layers;
#[cfg(unix)]
mod message;
mod policy;
#[cfg(unix)]
mod pool;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;

pub use budget::{Budget, Charge};
#[cfg(unix)]
pub use decoder::{ARGUMENT, run as run_decoder};
pub use error::Error;
pub use layers::{SandboxLayer, SandboxLayers};
pub use policy::Policy;

use crate::imaging::{self, Limits, Preset, Processed, SourceFormat};

/// Configures how images are decoded and how long one may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Program that runs as a decoder when its only argument is [`ARGUMENT`]. `None` decodes on threads of this
    /// process; then an image that crashes its decoder crashes the process.
    pub program: Option<PathBuf>,
    /// CPU time limit of one image.
    pub time_limit: Duration,
    /// Wall-clock limit of one image; longer than `time_limit`, because a busy machine gives CPU time slowly.
    pub wall_clock_limit: Duration,
    /// Whether decoding requires every sandbox layer.
    pub needs_layers: bool,
    /// Maximum number of decoder processes.
    pub processes: usize,
}

/// Decodes images on threads or in processes; cheap to clone.
#[derive(Clone, Debug)]
pub enum Decoders {
    /// Threads of this process.
    Threads,
    /// One process per image.
    #[cfg(unix)]
    Processes(pool::Pool),
}

/// An image and the presets to render.
#[derive(Clone, Debug)]
pub struct DecodeTask {
    /// Bytes of the source file.
    pub source: Bytes,
    /// Presets to render.
    pub presets: Vec<Preset>,
    /// Limits on accepted images.
    pub limits: Limits,
}

impl Decoders {
    /// Creates decoders as configured; starts no process yet. Systems other than Unix always use threads.
    pub fn new(config: &Config) -> Self {
        match config.program.clone() {
            #[cfg(unix)]
            Some(program) => Self::Processes(pool::Pool::new(program, config)),
            _ => Self::Threads,
        }
    }

    /// Returns `processes` or `threads`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Threads => "threads",
            #[cfg(unix)]
            Self::Processes(_) => "processes",
        }
    }

    /// Returns whether this process survives a decoder crash.
    pub const fn are_apart(&self) -> bool {
        !matches!(self, Self::Threads)
    }

    /// Runs [`imaging::memory_needed`].
    ///
    /// # Errors
    /// [`Error::DecodeTask`] if the image is rejected; the other errors if the decoder failed.
    pub async fn memory_needed(&self, image: &DecodeTask) -> Result<u64, Error> {
        match self {
            Self::Threads => {
                let DecodeTask { source, presets, limits } = image.clone();
                let work = move || imaging::memory_needed(&source, &presets, &limits);
                Ok(tokio::task::spawn_blocking(work).await.map_err(|_| disorder())??)
            }
            #[cfg(unix)]
            Self::Processes(pool) => pool.memory_needed(image).await,
        }
    }

    /// Returns the source format found by [`imaging::probe`].
    ///
    /// # Errors
    /// As for [`memory_needed`](Self::memory_needed).
    pub async fn probe(&self, image: &DecodeTask) -> Result<SourceFormat, Error> {
        match self {
            Self::Threads => {
                let DecodeTask { source, limits, .. } = image.clone();
                let work = move || imaging::probe(&source, &limits).map(|probe| probe.format);
                Ok(tokio::task::spawn_blocking(work).await.map_err(|_| disorder())??)
            }
            #[cfg(unix)]
            Self::Processes(pool) => pool.probe(image).await,
        }
    }

    /// Runs [`imaging::process`]; `needed` is the result of [`memory_needed`](Self::memory_needed).
    ///
    /// `held` is dropped when the work ends. If the caller drops the future, a decoder process is killed, but a thread
    /// runs to its end and keeps `held` until then.
    ///
    /// # Errors
    /// [`Error::DecodeTask`] if the image is rejected; the other errors if the decoder failed.
    pub async fn process<H: Send + 'static>(
        &self,
        image: DecodeTask,
        needed: u64,
        held: H,
    ) -> Result<Processed, Error> {
        match self {
            Self::Threads => {
                let thread = tokio::task::spawn_blocking(move || {
                    let _held = held;
                    imaging::process(&image.source, &image.presets, &image.limits)
                });
                Ok(thread.await.map_err(|_| disorder())??)
            }
            #[cfg(unix)]
            Self::Processes(pool) => {
                let _held = held;
                pool.process(&image, needed).await
            }
        }
    }

    /// Starts a decoder and returns its sandbox layers; threads have none.
    ///
    /// # Errors
    /// [`Error::NotStarted`] if no decoder can be started.
    pub async fn layers(&self) -> Result<SandboxLayers, Error> {
        match self {
            Self::Threads => Ok(SandboxLayers::default()),
            #[cfg(unix)]
            Self::Processes(pool) => pool.layers().await,
        }
    }
}

fn disorder() -> Error {
    Error::DecodeTask(imaging::Error::Undecodable { reason: "the decoder thread panicked".into() })
}
