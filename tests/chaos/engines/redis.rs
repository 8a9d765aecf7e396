//! A Redis that saves to disk only on command.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::sync::Mutex;

use super::{START_LIMIT, programs, wait_until};
use crate::processes::{Process, Spec};

/// A server at a fixed address, running or not.
pub struct Redis {
    server: Spec,
    address: SocketAddr,
    running: Mutex<Option<Process>>,
}

/// Programs that are needed and missing.
pub fn missing() -> Option<&'static str> {
    programs::find("redis-server", &[]).is_none().then_some("redis-server (Debian: redis-server)")
}

impl Redis {
    /// Creates the directory of a new server without starting it.
    pub async fn prepare(directory: &Path) -> anyhow::Result<Self> {
        let program = programs::find("redis-server", &[]).context("redis-server is not installed")?;
        let user = programs::user();
        programs::directory_of(user, directory)?;
        let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
        let server = Spec { user, ..Spec::new("redis", program, directory) };
        let server = server
            .arguments(["--bind", "127.0.0.1", "--daemonize", "no", "--save", "", "--appendonly", "no", "--dir"])
            .arguments([directory])
            .arguments(["--port".to_owned(), address.port().to_string()]);
        Ok(Self { server, address, running: Mutex::new(None) })
    }

    /// Returns the server's address, running or not.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL over `address`: the server's own or a proxy's.
    pub fn url(address: SocketAddr) -> String {
        format!("redis://{address}")
    }

    /// Starts the server, or resumes it if it is frozen, and waits until it answers. Loads the data that were saved
    /// before it was killed.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        if let Some(process) = &mut *running
            && process.is_running()
        {
            process.thaw();
        }
        wait_until("Redis answers", START_LIMIT, async || {
            if !running.as_mut().is_some_and(Process::is_running) {
                *running = self.server.spawn().ok();
            }
            self.command::<String>(&["PING"]).await.is_ok()
        })
        .await
        .with_context(|| format!("see {}", self.server.log().display()))
    }

    /// Shuts the server down cleanly.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut process) = self.running.lock().await.take() else { return Ok(()) };
        process.thaw();
        process.terminate();
        process.ended(START_LIMIT).await.map(|_| ())
    }

    /// Kills the server.
    pub async fn kill(&self) {
        if let Some(mut process) = self.running.lock().await.take() {
            process.kill().await;
        }
    }

    /// Freezes the server (SIGSTOP).
    pub async fn freeze(&self) {
        if let Some(process) = &*self.running.lock().await {
            process.freeze();
        }
    }

    /// Resumes it (SIGCONT).
    pub async fn thaw(&self) {
        if let Some(process) = &*self.running.lock().await {
            process.thaw();
        }
    }

    /// Makes all clients wait this long (`CLIENT PAUSE`).
    pub async fn pause_clients(&self, pause: Duration) -> anyhow::Result<()> {
        self.command::<()>(&["CLIENT", "PAUSE", &pause.as_millis().to_string(), "ALL"]).await
    }

    /// Runs a command over a new connection, within 2 s.
    pub async fn command<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> anyhow::Result<T> {
        let asking = async {
            let client = ::redis::Client::open(Self::url(self.address))?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let mut command = ::redis::cmd(words[0]);
            words[1..].iter().for_each(|word| {
                command.arg(*word);
            });
            Ok(command.query_async(&mut connection).await?)
        };
        tokio::time::timeout(Duration::from_secs(2), asking).await.context("Redis did not answer within 2 s")?
    }
}
