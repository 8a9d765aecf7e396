//! The program under test: its path, and `pm serve` and `pm worker` as processes.

use std::{net::SocketAddr, path::PathBuf};

use crate::{api::Api, processes::Process};

/// Returns the program: `PM_CHAOS_BINARY`, or cargo's latest build.
pub fn path() -> PathBuf {
    std::env::var_os("PM_CHAOS_BINARY").map_or_else(built, PathBuf::from)
}

/// Returns the program that cargo has just built.
pub fn built() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pm"))
}

/// A running `pm serve`.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Its address.
    pub address: SocketAddr,
}

impl Server {
    /// Returns a client of it.
    pub fn api(&self) -> Api {
        Api::new(self.address)
    }
}
