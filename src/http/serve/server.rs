//! The accept loop: takes connections, serves each over HTTP/1.1 or HTTP/2, and ends them gently. It bounds what a client
//! can cost before any request is read: places, time for a head, time for an answer to be taken.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    answers::{Held, StreamExecutor},
    explain::Explaining,
    service::Service,
    stall::Stalling,
    tls::Tls,
};
use crate::{
    http::{
        Config, State,
        admission::seats::{Seats, Taken},
        headers::forwarded::Client,
    },
    stop::Reload,
};

/// Longest line and headers of a request, in bytes; hyper answers 431 beyond, and `explain.rs` says why.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How long a connection without a request is waited for once the server stops: one may be on its way already, and a
/// client cannot tell whether what it sent over a connection that was closed meanwhile was done.
const LINGER: Duration = Duration::from_millis(500);

/// What all connections share.
struct Shared {
    service: Service,
    protocol: auto::Builder<StreamExecutor>,
    header_timeout: Duration,
    keep_alive: Duration,
    stall_limit: Duration,
    tls: Option<Tls>,
    stopping: watch::Receiver<bool>,
}

/// Serves until `stop` ends, then lets what is in flight end, at most for the grace of `config`.
///
/// From the moment `stop` ends `/readyz` answers 503, connections that were made already are still served, and no new ones
/// are taken. Trouble with a connection or with accepting one is logged and never ends the server.
pub async fn serve(listener: TcpListener, state: State, config: Config, stop: impl Future<Output = ()> + Send) {
    let (stopping, stopped) = watch::channel(false);
    let places = places(config.max_connections);
    // Streams stay, so they leave as many places to requests that come and go.
    let config = Config { max_streams: config.max_streams.min(places / 2), ..config };
    let shared = Arc::new(Shared {
        service: Service::new(state, &config),
        protocol: protocol(&config),
        header_timeout: config.header_timeout,
        keep_alive: config.keep_alive,
        stall_limit: config.stall_limit,
        tls: config.tls.clone(),
        stopping: stopped,
    });
    let seats = Seats::new(places, config.max_connections_per_address, config.proxies.clone());
    let mut connections = JoinSet::new();
    let mut waiting = None;
    let accept = accept_all(&listener, &shared, &seats, &mut connections, &mut waiting);
    tokio::select! {
        biased;
        () = stop => {}
        never = accept => match never {},
        () = follow_certificate(config.tls.as_ref(), &config.reload) => {}
    }
    shared.service.stop();
    if let Err(error) = take_backlog(listener, waiting, &shared, &seats, &mut connections).await {
        warn!(target: "pm::http", %error, "connections that were not accepted yet are reset");
    }
    stopping.send_replace(true);
    finish(connections, config.grace).await;
}

fn protocol(config: &Config) -> auto::Builder<StreamExecutor> {
    let mut protocol = auto::Builder::new(StreamExecutor { stall_limit: config.stall_limit });
    // Heads and idle connections are watched over from outside: hyper has one time limit for both.
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .max_concurrent_streams(64)
        // Streams that a client opens and takes back again and again cost it its connection.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .max_send_buf_size(256 * 1024)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    protocol
}

async fn accept_all(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    seats: &Arc<Seats>,
    connections: &mut JoinSet<()>,
    waiting: &mut Option<(TcpStream, SocketAddr)>,
) -> Infallible {
    let mut in_trouble = false;
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(accepted) => {
                in_trouble = false;
                // The one that waits for its permit here is all that is taken beyond the permits.
                *waiting = Some(accepted);
                let permit = seats.permit().await;
                if let Some((stream, client)) = waiting.take() {
                    admit(stream, client, permit, shared, seats, connections);
                }
            }
            Err(error) => back_off(&error, seats, &mut in_trouble).await,
        }
    }
}

/// Serves the connection that waits for a permit and those that the system has made, then closes the listener.
///
/// Asks the system itself: Tokio's listener knows of a connection only once its event loop has been round, and closing the
/// listener resets those it does not know of.
async fn take_backlog(
    listener: TcpListener,
    waiting: Option<(TcpStream, SocketAddr)>,
    shared: &Arc<Shared>,
    seats: &Arc<Seats>,
    connections: &mut JoinSet<()>,
) -> io::Result<()> {
    let listener = listener.into_std()?;
    let backlog = std::iter::from_fn(|| listener.accept().ok()).map(|(stream, client)| {
        stream.set_nonblocking(true)?;
        io::Result::Ok((TcpStream::from_std(stream)?, client))
    });
    for accepted in waiting.map(Ok).into_iter().chain(backlog) {
        let (stream, client) = accepted?;
        let Ok(permit) = timeout(LINGER, seats.permit()).await else { break };
        admit(stream, client, permit, shared, seats, connections);
    }
    Ok(())
}

fn admit(
    stream: TcpStream,
    client: SocketAddr,
    permit: OwnedSemaphorePermit,
    shared: &Arc<Shared>,
    seats: &Arc<Seats>,
    connections: &mut JoinSet<()>,
) {
    match seats.take(permit, client.ip()) {
        Some(taken) => {
            connections.spawn(begin_connection(stream, client, taken, Arc::clone(shared)));
        }
        None => debug!(target: "pm::http", "{} has as many connections as it may; one more is closed", client.ip()),
    }
}

/// Waits a moment after a failed accept, as it fails again at once while the process has no descriptor left.
async fn back_off(error: &io::Error, seats: &Seats, in_trouble: &mut bool) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        return;
    }
    // One line for each time it begins, not one for each try.
    if !std::mem::replace(in_trouble, true) {
        warn!(target: "pm::http", %error, "cannot take a connection; slow clients make room");
    }
    seats.evict_slowest();
    sleep(Duration::from_millis(20)).await;
}

/// Lets the process have as many open files as the system lets it have for the asking: the limit that programs are started
/// with is mostly for those that cannot count further than it.
fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        const ENOUGH: u64 = 65_536;
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
        if limit.current.is_some_and(|current| current < wanted) {
            // What cannot be had is done without.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
        }
    }
}

/// How many connections there may be: as many as are wanted, but never so many that none of the process's file
/// descriptors are left for databases and pictures.
fn places(wanted: usize) -> usize {
    raise_descriptor_limit();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = soft_descriptor_limit(&limits).map_or(wanted, |limit| limit / 4 * 3);
    if wanted > most {
        warn!(target: "pm::http", wanted, most, "the limit of open files allows fewer connections than are set");
    }
    wanted.min(most)
}

/// The soft limit of open files in the words of `/proc/self/limits`; `None` if there is none.
fn soft_descriptor_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Shakes hands, if that is to be done, within the time for a head: until then the client has said nothing.
async fn begin_connection(stream: TcpStream, address: SocketAddr, taken: Taken, shared: Arc<Shared>) {
    let _counted = shared.service.connection();
    // An answer is written as a whole, so waiting for more bytes to send along only delays it.
    let _ = stream.set_nodelay(true);
    let client = Client { address: address.ip().to_canonical(), secure: shared.tls.is_some() };
    let Some(tls) = &shared.tls else { return serve_connection(stream, client, taken, shared).await };
    let handshake = timeout(shared.header_timeout, tls.acceptor().accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = taken.seat.evicted() => return,
    };
    match shaken {
        Ok(Ok(stream)) => Box::pin(serve_connection(stream, client, taken, shared)).await,
        Ok(Err(error)) => debug!(target: "pm::http", %error, "a client did not agree on an encryption"),
        Err(_) => debug!(target: "pm::http", "a client was too slow to agree on an encryption"),
    }
}

/// Looks after the certificate, if there is one; never ends.
async fn follow_certificate(tls: Option<&Tls>, reload: &Reload) {
    match tls {
        Some(tls) => tls.follow(reload).await,
        None => std::future::pending().await,
    }
}

async fn serve_connection<S>(stream: S, client: Client, taken: Taken, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seat = &taken.seat;
    let service = service_fn(|request| {
        let (busy, shared, seat) = (seat.begins(&request), Arc::clone(&shared), Arc::clone(seat));
        async move {
            let (response, slot) = shared.service.answer(request, client, seat).await;
            Ok::<_, Infallible>(Held::new(response, slot, busy))
        }
    });
    let mut stopping = shared.stopping.clone();
    let stalling = Stalling::new(stream, Arc::clone(seat), shared.header_timeout, shared.stall_limit);
    let explain = {
        let (seat, shared) = (Arc::clone(seat), Arc::clone(&shared));
        move |status| seat.is_between_requests().then(|| shared.service.explain(status, client))
    };
    let io = TokioIo::new(Explaining::new(stalling, explain));
    let mut connection = pin!(shared.protocol.serve_connection(io, service));
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = seat.opened() => {}
        () = seat.evicted() => return,
        () = sleep(shared.header_timeout) => return,
        () = async { let _ = stopping.wait_for(|stop| *stop).await; sleep(LINGER).await } => {}
    }
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = seat.evicted() => return,
        () = seat.idle_for(shared.keep_alive) => connection.as_mut().graceful_shutdown(),
        () = async { let _ = stopping.wait_for(|stop| *stop).await; sleep(LINGER).await } => {
            connection.as_mut().graceful_shutdown();
        }
    }
    tokio::select! {
        ended = connection.as_mut() => note(ended),
        () = seat.evicted() => {}
    }
}

fn note(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        debug!(target: "pm::http", error, "a connection broke off");
    }
}

async fn finish(mut connections: JoinSet<()>, grace: Duration) {
    while connections.try_join_next().is_some() {}
    info!(target: "pm::http", connections = connections.len(), "taking no more requests");
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, all_ended).await.is_err() {
        warn!(target: "pm::http", connections = connections.len(), "the grace is over; closing what is still open");
        connections.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let limits = "Limit       Soft Limit  Hard Limit  Units\nMax open files    1024    524288    files\n";
        assert_eq!(soft_descriptor_limit(limits), Some(1024));
        assert_eq!(soft_descriptor_limit("Max open files    unlimited    unlimited    files\n"), None);
        assert_eq!(soft_descriptor_limit(""), None);
    }
}
