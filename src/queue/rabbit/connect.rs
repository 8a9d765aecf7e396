//! Opens a TCP or TLS connection to a broker that can be shut down at any time.
//!
//! The client library reads and writes on its own thread, which waits for the peer even after its connection was
//! dropped. A second handle on the socket ends that wait if the broker is silent.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    tcp::TLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{Error, Role};

/// Timeout for DNS lookup, TCP, TLS and the AMQP handshake together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Heartbeat interval in seconds, unless the URL sets another one.
const HEARTBEAT_SECONDS: u16 = 10;

/// Holds a handle on a connection's socket and shuts it down when dropped.
pub(super) struct ConnectionGuard {
    socket: Arc<Mutex<Socket>>,
    /// Dropped together with this handle, which cancels a pending connection attempt.
    _alive: watch::Sender<()>,
}

enum Socket {
    Connecting,
    Open(TcpStream),
    Cut,
}

/// Parses a broker's URL. An empty virtual host, as in `amqp://host/`, means the default one.
///
/// # Errors
/// [`Error::Config`] with a text that does not contain the URL.
pub(super) fn parse(address: &str) -> Result<AMQPUri, Error> {
    let refuse = |why: &str| Error::Config(format!("the broker's URL {why}"));
    let url = url::Url::parse(address).map_err(|error| refuse(&format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(refuse("must start with amqp:// or amqps://"));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refuse("names no host"))?;
    let mut uri: AMQPUri = address.parse().map_err(|error: String| refuse(&format!("cannot be used: {error}")))?;
    // For an IPv6 address the library uses its default host.
    uri.authority.host = host.trim_start_matches('[').trim_end_matches(']').into();
    if uri.vhost.is_empty() {
        uri.vhost = "/".into();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    Ok(uri)
}

/// Connects to the broker at `uri` within 10 s.
///
/// # Errors
/// [`Error::Unavailable`]; a pending attempt is canceled.
pub(super) async fn connect(uri: &AMQPUri, role: Role) -> Result<(Connection, ConnectionGuard), Error> {
    if uri.scheme == AMQPScheme::AMQPS {
        // An error only means that the process has already installed a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let (alive, ended) = watch::channel(());
    let guard = ConnectionGuard { socket: Arc::new(Mutex::new(Socket::Connecting)), _alive: alive };
    let runtime = lapin::runtime::default_runtime().map_err(|source| Error::broker("finding a runtime", source))?;
    let properties = ConnectionProperties::default().with_connection_name(role.connection_name().into());

    let (socket, reactor) = (Arc::clone(&guard.socket), runtime.clone());
    let open_socket = async move |uri: AMQPUri, _| {
        let dialling = async {
            let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
            let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
            for address in tokio::net::lookup_host((host, port)).await? {
                match AsyncTcpStream::connect(&reactor, address).await {
                    Ok(stream) => {
                        if let AsyncTcpStream::Plain(plain) = &stream {
                            plain.get_ref().set_nodelay(true)?;
                            keep(&socket, plain.get_ref())?;
                        }
                        return match uri.scheme {
                            AMQPScheme::AMQP => Ok(stream),
                            AMQPScheme::AMQPS => stream.into_tls(host, TLSConfig::default()).await,
                        };
                    }
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        };
        let mut ended = ended.clone();
        let stream = tokio::select! {
            stream = dialling => stream,
            _ = ended.changed() => Err(io::ErrorKind::TimedOut.into()),
        };
        stream.map_err(lapin::Error::from)
    };
    let connecting = Connection::connector(uri.clone(), runtime, open_socket, properties);
    match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
        Ok(Ok(connection)) => Ok((connection, guard)),
        Ok(Err(source)) => Err(Error::broker("connecting", source)),
        Err(_) => Err(Error::unavailable("no connection within 10 s")),
    }
}

impl ConnectionGuard {
    /// Shuts the socket down; all pending reads and writes fail at once.
    pub(super) fn cut(&self) {
        if let Socket::Open(stream) = std::mem::replace(&mut *lock(&self.socket), Socket::Cut) {
            // Fails if the peer closed it first, which has the same effect.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Stores a second handle on the socket of `stream`.
fn keep(socket: &Mutex<Socket>, stream: &impl AsFd) -> io::Result<()> {
    let mut socket = lock(socket);
    if matches!(*socket, Socket::Cut) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    *socket = Socket::Open(stream.as_fd().try_clone_to_owned()?.into());
    Ok(())
}

fn lock(socket: &Mutex<Socket>) -> MutexGuard<'_, Socket> {
    socket.lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_virtual_host_uses_the_default_one() {
        for address in ["amqp://broker", "amqp://broker/", "amqp://broker/%2f"] {
            assert_eq!(parse(address).expect("an address").vhost, "/", "{address}");
        }
        assert_eq!(parse("amqp://broker/shop").expect("an address").vhost, "shop");
    }

    #[test]
    fn an_ipv6_host_is_kept() {
        let uri = parse("amqps://pm:secret@[::1]/").expect("an address");
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("::1", 5671));
    }

    #[test]
    fn the_heartbeat_is_ten_seconds_unless_the_url_sets_another_one() {
        assert_eq!(parse("amqp://broker").expect("an address").query.heartbeat, Some(10));
        assert_eq!(parse("amqp://broker?heartbeat=3").expect("an address").query.heartbeat, Some(3));
    }

    #[test]
    fn an_invalid_url_is_rejected_without_being_repeated() {
        for address in ["secret", "http://u:secret@broker", "amqp:secret", "amqp://u:secret@broker:99999", "amqp:///"] {
            match parse(address) {
                Err(Error::Config(why)) => assert!(!why.contains("secret"), "{why}"),
                other => panic!("{address}: {other:?}"),
            }
        }
    }
}
