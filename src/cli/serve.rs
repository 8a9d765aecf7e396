//! `pm serve` and `pm worker`: the services, which run until they are stopped.

use std::{io, net::SocketAddr, num::NonZeroUsize, process, thread};

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use super::{
    failure::{Exit, Failure},
    sandbox,
};
use crate::{
    app::{self, Access, App},
    config::{Auth, Settings},
    http::Origins,
    imaging::JPEG_BACKEND,
    reload::Reload,
};

/// Length of the listen queue; the system limits it to `net.core.somaxconn`.
///
/// If the queue is full, a client retries after a second.
const BACKLOG: u32 = 4_096;

/// Runs `pm serve` until `stop`; `reload` reloads the certificate.
pub(super) async fn serve(settings: Settings, stop: CancellationToken, reload: Reload) -> Result<Exit, Failure> {
    refuse_the_open(&settings)?;
    if let Some(warning) = open_to_others(&settings) {
        tracing::warn!("{warning}");
    }
    let workers = settings.workers;
    let asked = settings.listen;
    let isolation = sandbox::tried(&settings).await?;
    let Some(app) = started(&settings, Access::Serve, &stop).await? else { return Ok(Exit::Done) };
    let app = app.reloaded_by(reload);
    let scheme = if app.settings.security.tls.is_some() { "https" } else { "http" };
    let listener = bind(asked, scheme).await?;
    tracing::info!(workers, jpeg = JPEG_BACKEND, isolation, "serving");
    end_of(Box::pin(as_a_service(stop.clone(), app.serve(listener, workers, stop))).await)?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Runs `pm worker` until `stop`.
///
/// Its status listener uses no TLS, so `reload` has no effect on it.
pub(super) async fn work(settings: Settings, stop: CancellationToken, reload: Reload) -> Result<Exit, Failure> {
    // The setting 0 applies to `serve` only.
    let concurrency = match settings.workers {
        0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        workers => workers,
    };
    let asked = settings.worker_listen;
    let isolation = sandbox::tried(&settings).await?;
    let Some(app) = started(&settings, Access::Existing, &stop).await? else { return Ok(Exit::Done) };
    let app = app.reloaded_by(reload);
    let status = match asked {
        Some(address) => Some(bind(address, "http").await?),
        None => None,
    };
    if let Some(address) = asked.filter(|address| !address.ip().to_canonical().is_loopback()) {
        tracing::warn!(%address, "/metrics of this worker requires no token: let only your monitoring reach it");
    }
    tracing::info!(concurrency, jpeg = JPEG_BACKEND, isolation, "working on images");
    end_of(Box::pin(as_a_service(stop.clone(), app.work(concurrency, status, stop))).await)?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Ends the process at once if its database file was replaced.
///
/// An orderly close of the connections would write their log over the new file.
fn end_of(outcome: Result<(), app::Error>) -> Result<(), app::Error> {
    match outcome {
        Err(error @ app::Error::ReplacedDatabase { .. }) => process::exit(Failure::from(error).report() as i32),
        outcome => outcome,
    }
}

/// Starts the app and waits for briefly unavailable components; returns `None` if `stop` comes first.
///
/// Waits without limit while PostgreSQL has no free connection.
async fn started(settings: &Settings, access: Access, stop: &CancellationToken) -> Result<Option<App>, Failure> {
    let mut settings = settings.clone();
    settings.database_connections.wait = true;
    tokio::select! {
        app = App::start(&settings, access) => Ok(Some(app?.isolated_by(sandbox::own_program()))),
        () = stop.cancelled() => Ok(None),
    }
}

/// Runs `work` and reports the state to the service manager.
async fn as_a_service<T>(stop: CancellationToken, work: impl Future<Output = T>) -> T {
    #[cfg(target_os = "linux")]
    return super::service::run(stop, work).await;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stop;
        work.await
    }
}

/// Refuses to listen beyond this machine without authentication and encryption, unless configured explicitly.
fn refuse_the_open(settings: &Settings) -> Result<(), Failure> {
    let security = &settings.security;
    if security.auth == Auth::Off || settings.listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let reached = format!("other machines can reach {}", settings.listen);
    if security.auth == Auth::Unsaid {
        return Err(Failure::new(Exit::Usage, format!("{reached}, but authentication is off"))
            .hint("PM_AUTH=off permits this; --listen 127.0.0.1:8080 serves this machine only"));
    }
    if security.tls.is_some() || security.plain_http || !security.proxies.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("{reached}, but tokens would be sent unencrypted")).hint(
        "set --tls-cert and --tls-key; or set PM_TRUSTED_PROXIES to the proxies that encrypt; PM_PLAIN_HTTP=allow \
         permits plain HTTP",
    ))
}

/// Returns a warning if the settings imply remote clients but authentication is off.
fn open_to_others(settings: &Settings) -> Option<String> {
    let security = &settings.security;
    if !matches!(security.auth, Auth::Unsaid | Auth::Off) {
        return None;
    }
    let settings = [
        ("PM_PUBLIC_URL", settings.public_url.is_some(), "client that reaches this server"),
        ("PM_TRUSTED_PROXIES", !security.proxies.is_empty(), "client that reaches this server"),
        ("PM_CORS_ORIGINS=*", security.origins == Origins::Any, "web page that a user of this server opens"),
    ];
    let (setting, _, reader) = settings.into_iter().find(|(_, is_set, _)| *is_set)?;
    Some(format!(
        "{setting} is set and authentication is off: every {reader} can read and change all products; PM_AUTH=keys \
         requires an API key"
    ))
}

async fn bind(asked: SocketAddr, scheme: &str) -> Result<TcpListener, Failure> {
    let listener = listener(asked).map_err(|error| cannot_listen(asked, error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(asked, error))?;
    tracing::info!("listening on {scheme}://{address}");
    Ok(listener)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server can use the port while old connections are still closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn cannot_listen(address: SocketAddr, error: io::Error) -> Failure {
    let in_use = error.kind() == io::ErrorKind::AddrInUse;
    let failure = Failure::because(Exit::Failed, error).context(format!("cannot listen on {address}"));
    if in_use { failure.hint("choose another address with --listen; port 0 selects a free port") } else { failure }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn two_thousand_clients_connect_at_once() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum.map(|most| most.min(4_096)), maximum }).expect("a limit");
        let system = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the system's own limit");
        let clients = system.trim().parse::<usize>().expect("a number").min(2_000);
        let listener = listener(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut connections = Vec::new();
        for number in 0..clients {
            let connecting = tokio::net::TcpStream::connect(address);
            let connected = tokio::time::timeout(std::time::Duration::from_millis(700), connecting).await;
            connections
                .push(connected.unwrap_or_else(|_| panic!("client {number} is not connected")).expect("connected"));
        }
    }

    #[test]
    fn a_public_server_without_authentication_logs_a_warning() {
        let nowhere = tempfile::tempdir().expect("a directory");
        let warning = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            let settings = config::load(&config::Flags::default(), nowhere.path(), variables).expect("right settings");
            open_to_others(&settings)
        };
        assert_eq!(warning(&[]), None);
        assert_eq!(warning(&[("PM_CORS_ORIGINS", "https://shop.example")]), None);
        for (name, value) in
            [("PM_PUBLIC_URL", "https://shop.example"), ("PM_TRUSTED_PROXIES", "10.0.0.0/8"), ("PM_CORS_ORIGINS", "*")]
        {
            assert!(warning(&[(name, value)]).is_some_and(|warning| warning.contains(name)), "{name}");
            assert!(warning(&[(name, value), ("PM_AUTH", "off")]).is_some(), "{name}");
            assert_eq!(warning(&[(name, value), ("PM_AUTH", "keys")]), None, "{name}");
        }
    }

    #[test]
    fn listening_beyond_this_machine_requires_explicit_settings() {
        let nowhere = tempfile::tempdir().expect("a directory");
        let refused = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            let directory: &Path = nowhere.path();
            let settings = config::load(&config::Flags::default(), directory, variables).expect("right settings");
            refuse_the_open(&settings).err().map(|failure| failure.to_string())
        };
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[("PM_LISTEN", "[::1]:80")]), None);
        assert_eq!(refused(&[("PM_LISTEN", "0.0.0.0:80"), ("PM_AUTH", "off")]), None);
        for address in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80"] {
            let failure = refused(&[("PM_LISTEN", address)]).expect("refused");
            assert!(failure.contains(address) && failure.contains("hint: PM_AUTH=off"), "{failure}");
        }
        let open = [("PM_LISTEN", "0.0.0.0:80"), ("PM_AUTH", "keys")];
        let failure = refused(&open).expect("refused");
        assert!(failure.contains("unencrypted") && failure.contains("hint: set --tls-cert"), "{failure}");
        assert_eq!(refused(&[open[0], open[1], ("PM_PLAIN_HTTP", "allow")]), None);
        assert_eq!(refused(&[open[0], open[1], ("PM_TRUSTED_PROXIES", "10.0.0.0/8")]), None);
        assert_eq!(refused(&[open[0], open[1], ("PM_TLS_CERT", "c.pem"), ("PM_TLS_KEY", "k.pem")]), None);
    }
}
