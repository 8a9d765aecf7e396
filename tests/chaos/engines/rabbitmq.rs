//! A RabbitMQ with its own node name, distribution port and port mapper (epmd), separate from any other on the machine,
//! and listening on loopback only.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
};

use super::{START_LIMIT, programs, wait_until};
use crate::processes::{Process, Spec};

/// A broker at a fixed address, running or not.
pub struct RabbitMq {
    server: Spec,
    control: Spec,
    data: PathBuf,
    address: SocketAddr,
    running: Mutex<Option<Process>>,
    /// Keeps epmd alive.
    _register: Process,
}

/// The broker's state of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Ready messages, delivered to no consumer.
    pub ready: u32,
    /// Consumers of all processes.
    pub consumers: u32,
}

/// Programs that are needed and missing.
pub fn missing() -> Option<&'static str> {
    let there = |program| programs::find(program, &programs::rabbitmq_places()).is_some();
    let all = ["rabbitmq-server", "rabbitmqctl", "epmd"].into_iter().all(there);
    (!all).then_some("rabbitmq-server, rabbitmqctl and epmd (Debian: rabbitmq-server)")
}

impl RabbitMq {
    /// Writes the settings of a new broker into `directory` and starts epmd, but not the broker.
    pub async fn prepare(directory: &Path) -> anyhow::Result<Self> {
        let places = programs::rabbitmq_places();
        let program = |name| programs::find(name, &places).with_context(|| format!("{name} is not installed"));
        let user = programs::user();
        let data = directory.join("data");
        for directory in [directory, &data, &directory.join("logs")] {
            programs::directory_of(user, directory)?;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
        let register_port = programs::spare_port();
        let environment = environment(directory, address, register_port)?;
        let register =
            Spec { user, environment: environment.clone(), ..Spec::new("epmd", program("epmd")?, directory) };
        let register = register
            .arguments(["-port".to_owned(), register_port.to_string(), "-address".to_owned(), "127.0.0.1".to_owned()])
            .spawn()?;
        let spec = |name: &str, program| Spec {
            user,
            environment: environment.clone(),
            ..Spec::new(name, program, directory)
        };
        Ok(Self {
            server: spec("rabbitmq", program("rabbitmq-server")?),
            control: spec("rabbitmqctl", program("rabbitmqctl")?),
            data,
            address,
            running: Mutex::new(None),
            _register: register,
        })
    }

    /// Returns the broker's address, running or not.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the AMQP URL over `address`: the broker's own or a proxy's.
    pub fn url(address: SocketAddr) -> String {
        format!("amqp://guest:guest@{address}/%2f")
    }

    /// Starts the broker, or resumes its process or its application, and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        if let Some(process) = &mut *running
            && process.is_running()
        {
            process.thaw();
            if !self.answers().await {
                self.control(&["start_app"]).await?;
            }
        }
        wait_until("RabbitMQ answers", START_LIMIT, async || {
            if !running.as_mut().is_some_and(Process::is_running) {
                *running = self.server.spawn().ok();
            }
            self.answers().await
        })
        .await
        .with_context(|| format!("see {}", self.server.log().display()))
    }

    /// Kills the broker.
    pub async fn kill(&self) {
        if let Some(mut process) = self.running.lock().await.take() {
            process.kill().await;
        }
    }

    /// Freezes the broker (SIGSTOP).
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

    /// Deletes all stored data; the broker must not be running.
    pub async fn wipe(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.running.lock().await.is_none(), "a running broker keeps its data");
        std::fs::remove_dir_all(&self.data).context("deleting the broker's data")?;
        Ok(programs::directory_of(self.server.user, &self.data)?)
    }

    /// Stops the broker's application while its node keeps running.
    pub async fn stop_application(&self) -> anyhow::Result<()> {
        self.control(&["stop_app"]).await.map(|_| ())
    }

    /// Starts the application again and waits until the broker answers.
    pub async fn start_application(&self) -> anyhow::Result<()> {
        self.control(&["start_app"]).await?;
        wait_until("RabbitMQ answers", START_LIMIT, async || self.answers().await).await
    }

    /// Makes the broker close every client connection.
    pub async fn close_all_connections(&self) -> anyhow::Result<()> {
        self.control(&["close_all_connections", "an experiment"]).await.map(|_| ())
    }

    /// Runs `rabbitmqctl` with these arguments; returns its output.
    pub async fn control(&self, words: &[&str]) -> anyhow::Result<String> {
        self.control.clone().arguments(["-q"]).arguments(words).succeed(START_LIMIT).await
    }

    /// Returns the state of `queue`, asked over a new connection, within 5 s.
    pub async fn queue(&self, queue: &str) -> anyhow::Result<QueueState> {
        let asking = async {
            let connection = Connection::connect(&Self::url(self.address), ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
            let state =
                found.map(|found| QueueState { ready: found.message_count(), consumers: found.consumer_count() });
            // A failed close of the connection does not change the answer.
            let _ = connection.close(200, "goodbye".into()).await;
            Ok(state?)
        };
        tokio::time::timeout(Duration::from_secs(5), asking).await.context("RabbitMQ did not answer within 5 s")?
    }

    /// Returns whether it accepts connections: it answers the protocol header with a method frame.
    pub async fn answers(&self) -> bool {
        let asking = async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
            stream.read_u8().await.ok()
        };
        tokio::time::timeout(Duration::from_secs(2), asking).await.ok().flatten() == Some(1)
    }
}

/// Variables that identify the node, for the server and for `rabbitmqctl`.
fn environment(
    directory: &Path,
    address: SocketAddr,
    register_port: u16,
) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string()).context("writing the broker's settings")
    };
    let listener = format!("listeners.tcp.1 = {address}\nlog.console = false\n");
    file("rabbitmq.conf", listener)?;
    let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
    // Busy-waiting schedulers would take the cores that the experiment needs.
    let calm = "+sbwt none +sbwtdcpu none +sbwtdio none";
    let (first, last) = (programs::spare_port(), programs::spare_port());
    let path = |name: &str| directory.join(name).display().to_string();
    let variables = [
        ("HOME", directory.display().to_string()),
        ("ERL_EPMD_PORT", register_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODENAME", format!("chaos{register_port}@localhost")),
        ("RABBITMQ_DIST_PORT", programs::spare_port().to_string()),
        ("RABBITMQ_CTL_DIST_PORT_MIN", first.min(last).to_string()),
        ("RABBITMQ_CTL_DIST_PORT_MAX", first.max(last).to_string()),
        ("RABBITMQ_MNESIA_BASE", path("data")),
        ("RABBITMQ_LOG_BASE", path("logs")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins", "[].\n".to_owned())?),
        ("RABBITMQ_CONF_ENV_FILE", file("environment", String::new())?),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("none")),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("{calm} {loopback}")),
        ("RABBITMQ_CTL_ERL_ARGS", format!("+sbwt none {loopback}")),
        ("LANG", "C.UTF-8".to_owned()),
    ];
    Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
