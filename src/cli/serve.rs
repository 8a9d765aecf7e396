//! `pm serve` and `pm worker`: what runs until it is stopped.

use std::{io, net::SocketAddr, num::NonZeroUsize, process, thread};

use tokio::net::{TcpListener, TcpSocket};

use super::{
    failure::{Exit, Failure},
    sandbox,
};
use crate::{
    app::{self, Access, App},
    config::{Auth, Settings},
    http::Origins,
    imaging::JPEG_BACKEND,
    stop::{Reload, Stop},
};

/// Connections that the system makes before they are accepted; it allows no more than `net.core.somaxconn`. A client whose
/// connection finds no room asks again a second later.
const BACKLOG: u32 = 4_096;

/// Serves the API until `stop`, with a worker beside it unless the settings have none; `reload` asks for the certificate to
/// be read again.
pub(super) async fn serve(settings: Settings, stop: Stop, reload: Reload) -> Result<Exit, Failure> {
    refuse_the_open(&settings)?;
    if let Some(warning) = open_to_others(&settings) {
        tracing::warn!("{warning}");
    }
    let workers = settings.workers;
    let asked = settings.listen;
    let isolation = sandbox::tried(&settings).await?;
    let Some(app) = started(&settings, Access::Serve, &stop).await? else { return Ok(Exit::Done) };
    let app = app.reloaded_by(reload);
    let scheme = if app.settings.doors.tls.is_some() { "https" } else { "http" };
    let listener = bind(asked, scheme).await?;
    tracing::info!(workers, jpeg = JPEG_BACKEND, isolation, "serving");
    end_of(Box::pin(as_a_service(stop.clone(), app.serve(listener, workers, stop))).await)?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Works on images until `stop`. Its status is not encrypted, so `reload` has nothing to read again here.
pub(super) async fn work(settings: Settings, stop: Stop, reload: Reload) -> Result<Exit, Failure> {
    // No workers is a wish about `serve`; whoever starts a worker wants one.
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
        tracing::warn!(%address, "/metrics of this worker asks for no token: let only the monitoring network reach it");
    }
    tracing::info!(concurrency, jpeg = JPEG_BACKEND, isolation, "working on pictures");
    end_of(Box::pin(as_a_service(stop.clone(), app.work(concurrency, status, stop))).await)?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Ends the process at once if its database's file was replaced: to close the connections in good order would write their log
/// over the file that is there now.
fn end_of(outcome: Result<(), app::Error>) -> Result<(), app::Error> {
    match outcome {
        Err(error @ app::Error::ReplacedDatabase { .. }) => process::exit(Failure::from(error).report() as i32),
        outcome => outcome,
    }
}

/// Connects every engine, and waits for those that are away for a moment; `None` if somebody stopped it meanwhile.
///
/// While PostgreSQL has no connection free, it waits for one without end.
async fn started(settings: &Settings, access: Access, stop: &Stop) -> Result<Option<App>, Failure> {
    let (mut stop, mut settings) = (stop.clone(), settings.clone());
    settings.database_connections.wait = true;
    tokio::select! {
        app = App::start(&settings, access) => Ok(Some(app?.isolated_by(sandbox::own_program()))),
        () = stop.wanted() => Ok(None),
    }
}

/// Runs `work`; whoever started the process may want to know how it is.
async fn as_a_service<T>(stop: Stop, work: impl Future<Output = T>) -> T {
    #[cfg(target_os = "linux")]
    return super::service::run(stop, work).await;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stop;
        work.await
    }
}

/// What is reached from other machines is protected, or the opposite was said outright.
fn refuse_the_open(settings: &Settings) -> Result<(), Failure> {
    let doors = &settings.doors;
    if doors.auth == Auth::Off || settings.listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let reached = format!("{} can be reached from other machines", settings.listen);
    if doors.auth == Auth::Unsaid {
        return Err(Failure::new(Exit::Usage, format!("{reached}, and nobody has to prove who they are"))
            .hint("PM_AUTH=off says that this is meant; --listen 127.0.0.1:8080 serves this machine only"));
    }
    if doors.tls.is_some() || doors.plain_http || !doors.proxies.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("{reached}, and tokens would travel unencrypted")).hint(
        "--tls-cert and --tls-key encrypt them; PM_TRUSTED_PROXIES names the proxies that do; PM_PLAIN_HTTP=allow says \
         that this is meant",
    ))
}

/// Says so if the settings speak of clients beyond this machine, and nobody has to prove who they are.
fn open_to_others(settings: &Settings) -> Option<String> {
    let doors = &settings.doors;
    if !matches!(doors.auth, Auth::Unsaid | Auth::Off) {
        return None;
    }
    let settings = [
        ("PM_PUBLIC_URL", settings.public_url.is_some(), "client that reaches this server"),
        ("PM_TRUSTED_PROXIES", !doors.proxies.is_empty(), "client that reaches this server"),
        ("PM_CORS_ORIGINS=*", doors.origins == Origins::Any, "web page that a user of this server opens"),
    ];
    let (setting, _, reader) = settings.into_iter().find(|(_, is_set, _)| *is_set)?;
    Some(format!(
        "{setting} is set and authentication is off: every {reader} reads and changes all products; PM_AUTH=keys lets only \
         clients with an API key in"
    ))
}

async fn bind(asked: SocketAddr, scheme: &str) -> Result<TcpListener, Failure> {
    let listener = listener(asked).map_err(|error| taken(asked, error))?;
    let address = listener.local_addr().map_err(|error| taken(asked, error))?;
    tracing::info!("listening on {scheme}://{address}");
    Ok(listener)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that starts again takes the port from connections that are still being closed.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn taken(address: SocketAddr, error: io::Error) -> Failure {
    let in_use = error.kind() == io::ErrorKind::AddrInUse;
    let failure = Failure::because(Exit::Failed, error).context(format!("cannot listen on {address}"));
    if in_use { failure.hint("--listen takes another address; port 0 takes a free one") } else { failure }
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
    fn a_public_server_without_authentication_is_warned_of() {
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
    fn only_this_machine_is_served_unless_the_opposite_is_said() {
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
            let told = refused(&[("PM_LISTEN", address)]).expect("refused");
            assert!(told.contains(address) && told.contains("hint: PM_AUTH=off"), "{told}");
        }
        let open = [("PM_LISTEN", "0.0.0.0:80"), ("PM_AUTH", "keys")];
        let told = refused(&open).expect("refused");
        assert!(told.contains("unencrypted") && told.contains("hint: --tls-cert"), "{told}");
        assert_eq!(refused(&[open[0], open[1], ("PM_PLAIN_HTTP", "allow")]), None);
        assert_eq!(refused(&[open[0], open[1], ("PM_TRUSTED_PROXIES", "10.0.0.0/8")]), None);
        assert_eq!(refused(&[open[0], open[1], ("PM_TLS_CERT", "c.pem"), ("PM_TLS_KEY", "k.pem")]), None);
    }
}
