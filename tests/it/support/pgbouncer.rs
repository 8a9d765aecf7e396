//! A PgBouncer of the test for the machine's PostgreSQL: on its own port of 127.0.0.1, in transaction mode, with few
//! server connections.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::skip;

/// Server connections for each database.
pub const SERVER_CONNECTIONS: u32 = 4;

/// Runs until it is dropped.
pub struct PgBouncer {
    process: Child,
    _directory: TempDir,
    port: u16,
}

impl PgBouncer {
    /// Starts a PgBouncer for the server at `url`; `None` if the program is missing.
    pub async fn start(url: &str) -> Option<Self> {
        Self::start_with(url, "").await
    }

    /// As [`PgBouncer::start`], with additional lines of settings.
    pub async fn start_with(url: &str, settings: &str) -> Option<Self> {
        const PROGRAM: &str = "/usr/sbin/pgbouncer";
        if !Path::new(PROGRAM).exists() {
            skip("pgbouncer");
            return None;
        }
        let directory = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, configuration(url, port, settings)).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg(&file).current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(directory.path().join("log")).unwrap());
        if rustix::process::geteuid().is_root() {
            // PgBouncer refuses to run as root.
            const NOBODY: u32 = 65_534;
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let bouncer = Self { process: command.spawn().unwrap(), _directory: directory, port };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(bouncer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("pgbouncer does not listen on port {port}");
    }

    /// Returns the URL of the same database through the pooler.
    pub fn before(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(url: &str, port: u16, settings: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let (host, server_port) = (url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(5432));
    let password = url.password().map(|password| format!(" password='{password}'")).unwrap_or_default();
    format!(
        "[databases]\n* = host={host} port={server_port} user={}{password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 500\n{settings}\n",
        url.username()
    )
}
