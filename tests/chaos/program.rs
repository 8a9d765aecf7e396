//! The program under test: where it is, and `pm serve` and `pm worker` as processes.

use std::{net::SocketAddr, path::PathBuf};

use crate::{api::Api, processes::Process};

/// The program: the one that `cargo` has just built, or the one that `PM_CHAOS_BINARY` names.
pub fn path() -> PathBuf {
    std::env::var_os("PM_CHAOS_BINARY").map_or_else(built, PathBuf::from)
}

/// The program that `cargo` has just built.
pub fn built() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pm"))
}

/// A running `pm serve`.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// A client of it.
    pub fn api(&self) -> Api {
        Api::new(self.address)
    }
}
