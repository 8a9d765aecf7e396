//! The accept loop: accepts connections, serves them over HTTP/1.1 or HTTP/2, and shuts down gracefully.
//!
//! It limits what a client can cost before a request is parsed: connection slots, the time to send a head, and the time
//! to read a response.

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
        admission::connection_slots::{ConnectionSlots, OccupiedSlot},
        headers::forwarded::Client,
    },
    reload::Reload,
};

/// Maximum size of a request's line and headers in bytes; hyper returns 431 beyond it, `explain.rs` adds the reason.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Time that an idle connection stays open during shutdown.
///
/// A request may be on its way already; if the connection closed, the client could not know whether it was executed.
const LINGER: Duration = Duration::from_millis(500);

/// State that all connections share.
struct Shared {
    service: Service,
    protocol: auto::Builder<StreamExecutor>,
    header_timeout: Duration,
    keep_alive: Duration,
    stall_limit: Duration,
    tls: Option<Tls>,
    stopping: watch::Receiver<bool>,
}

/// Serves until `stop` completes, then shuts down gracefully.
///
/// Requests in flight may take the grace period of `config`. After `stop`, `/readyz` returns 503, established
/// connections are still served, and no new ones are accepted. An error on a connection or in accepting one is logged;
/// it never stops the server.
pub async fn serve(listener: TcpListener, state: State, config: Config, stop: impl Future<Output = ()> + Send) {
    let (stopping, stopped) = watch::channel(false);
    let places = places(config.max_connections);
    // Event streams are long-lived, so they may use only half of the connections.
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
    let slots = ConnectionSlots::new(places, config.max_connections_per_address, config.proxies.clone());
    let mut connections = JoinSet::new();
    let mut waiting = None;
    let accept = accept_all(&listener, &shared, &slots, &mut connections, &mut waiting);
    tokio::select! {
        biased;
        () = stop => {}
        never = accept => match never {},
        () = follow_certificate(config.tls.as_ref(), &config.reload) => {}
    }
    shared.service.stop();
    if let Err(error) = take_backlog(listener, waiting, &shared, &slots, &mut connections).await {
        warn!(target: "pm::http", %error, "cannot accept pending connections; they are reset");
    }
    stopping.send_replace(true);
    finish(connections, config.grace).await;
}

fn protocol(config: &Config) -> auto::Builder<StreamExecutor> {
    let mut protocol = auto::Builder::new(StreamExecutor { stall_limit: config.stall_limit });
    // `Stalling` and `idle_for` limit heads and idle connections: hyper has only one time limit for both.
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .max_concurrent_streams(64)
        // Closes the connection of a client that repeatedly opens and resets streams.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .max_send_buf_size(256 * 1024)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    protocol
}

async fn accept_all(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    slots: &Arc<ConnectionSlots>,
    connections: &mut JoinSet<()>,
    waiting: &mut Option<(TcpStream, SocketAddr)>,
) -> Infallible {
    let mut in_trouble = false;
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(accepted) => {
                in_trouble = false;
                // At most one connection beyond the permits is accepted: the one that waits for a permit here.
                *waiting = Some(accepted);
                let permit = slots.permit().await;
                if let Some((stream, client)) = waiting.take() {
                    admit(stream, client, permit, shared, slots, connections);
                }
            }
            Err(error) => back_off(&error, slots, &mut in_trouble).await,
        }
    }
}

/// Serves the pending connections, then closes the listener.
///
/// Pending are the connection that waits for a permit and those in the listen backlog.
///
/// Calls the operating system directly: Tokio learns of a connection only in its event loop, and closing the listener
/// resets connections that were not accepted.
async fn take_backlog(
    listener: TcpListener,
    waiting: Option<(TcpStream, SocketAddr)>,
    shared: &Arc<Shared>,
    slots: &Arc<ConnectionSlots>,
    connections: &mut JoinSet<()>,
) -> io::Result<()> {
    let listener = listener.into_std()?;
    let backlog = std::iter::from_fn(|| listener.accept().ok()).map(|(stream, client)| {
        stream.set_nonblocking(true)?;
        io::Result::Ok((TcpStream::from_std(stream)?, client))
    });
    for accepted in waiting.map(Ok).into_iter().chain(backlog) {
        let (stream, client) = accepted?;
        let Ok(permit) = timeout(LINGER, slots.permit()).await else { break };
        admit(stream, client, permit, shared, slots, connections);
    }
    Ok(())
}

fn admit(
    stream: TcpStream,
    client: SocketAddr,
    permit: OwnedSemaphorePermit,
    shared: &Arc<Shared>,
    slots: &Arc<ConnectionSlots>,
    connections: &mut JoinSet<()>,
) {
    match slots.take(permit, client.ip()) {
        Some(occupied) => {
            connections.spawn(begin_connection(stream, client, occupied, Arc::clone(shared)));
        }
        None => debug!(target: "pm::http", "{} reached its connection limit; closing a new connection", client.ip()),
    }
}

/// Waits after a failed accept.
///
/// Without free file descriptors, a retry would fail at once.
async fn back_off(error: &io::Error, slots: &ConnectionSlots, in_trouble: &mut bool) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        return;
    }
    // Log the first failure only, not each retry.
    if !std::mem::replace(in_trouble, true) {
        warn!(target: "pm::http", %error, "cannot accept a connection; closing the slowest one");
    }
    slots.evict_slowest();
    sleep(Duration::from_millis(20)).await;
}

/// Raises the soft limit of open files, up to 65,536.
fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        const SUFFICIENT_DESCRIPTORS: u64 = 65_536;
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(SUFFICIENT_DESCRIPTORS, |most| most.min(SUFFICIENT_DESCRIPTORS));
        if limit.current.is_some_and(|current| current < wanted) {
            // On failure, the process keeps the old limit.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
        }
    }
}

/// Returns the number of connections to allow: `wanted`, but at most three quarters of the file descriptors.
///
/// The rest is for databases and images.
fn places(wanted: usize) -> usize {
    raise_descriptor_limit();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = soft_descriptor_limit(&limits).map_or(wanted, |limit| limit / 4 * 3);
    if wanted > most {
        warn!(target: "pm::http", wanted, most, "the limit of open files allows fewer connections than configured");
    }
    wanted.min(most)
}

/// Parses the soft limit of open files from `/proc/self/limits`; `None` if unlimited or absent.
fn soft_descriptor_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Performs the TLS handshake, if TLS is on, and serves the connection.
async fn begin_connection(stream: TcpStream, address: SocketAddr, occupied: OccupiedSlot, shared: Arc<Shared>) {
    let _counted = shared.service.connection();
    // A response is written in one piece, so Nagle's algorithm would only delay it.
    let _ = stream.set_nodelay(true);
    let client = Client { address: address.ip().to_canonical(), secure: shared.tls.is_some() };
    let Some(tls) = &shared.tls else { return serve_connection(stream, client, occupied, shared).await };
    let handshake = timeout(shared.header_timeout, tls.acceptor().accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = occupied.connection_slot.evicted() => return,
    };
    match shaken {
        Ok(Ok(stream)) => Box::pin(serve_connection(stream, client, occupied, shared)).await,
        Ok(Err(error)) => debug!(target: "pm::http", %error, "TLS handshake failed"),
        Err(_) => debug!(target: "pm::http", "TLS handshake timed out"),
    }
}

/// Reloads the certificate when it changes, if there is one; never returns.
async fn follow_certificate(tls: Option<&Tls>, reload: &Reload) {
    match tls {
        Some(tls) => tls.follow(reload).await,
        None => std::future::pending().await,
    }
}

async fn serve_connection<S>(stream: S, client: Client, occupied: OccupiedSlot, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection_slot = &occupied.connection_slot;
    let service = service_fn(|request| {
        let (request_guard, shared, connection_slot) =
            (connection_slot.begins(&request), Arc::clone(&shared), Arc::clone(connection_slot));
        async move {
            let (response, slot) = shared.service.answer(request, client, connection_slot).await;
            Ok::<_, Infallible>(Held::new(response, slot, request_guard))
        }
    });
    let mut stopping = shared.stopping.clone();
    let stalling = Stalling::new(stream, Arc::clone(connection_slot), shared.header_timeout, shared.stall_limit);
    let explain = {
        let (connection_slot, shared) = (Arc::clone(connection_slot), Arc::clone(&shared));
        move |status| connection_slot.is_between_requests().then(|| shared.service.explain(status, client))
    };
    let io = TokioIo::new(Explaining::new(stalling, explain));
    let mut connection = pin!(shared.protocol.serve_connection(io, service));
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = connection_slot.opened() => {}
        () = connection_slot.evicted() => return,
        () = sleep(shared.header_timeout) => return,
        () = async { let _ = stopping.wait_for(|stop| *stop).await; sleep(LINGER).await } => {}
    }
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = connection_slot.evicted() => return,
        () = connection_slot.idle_for(shared.keep_alive) => connection.as_mut().graceful_shutdown(),
        () = async { let _ = stopping.wait_for(|stop| *stop).await; sleep(LINGER).await } => {
            connection.as_mut().graceful_shutdown();
        }
    }
    tokio::select! {
        ended = connection.as_mut() => note(ended),
        () = connection_slot.evicted() => {}
    }
}

fn note(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        debug!(target: "pm::http", error, "a connection failed");
    }
}

async fn finish(mut connections: JoinSet<()>, grace: Duration) {
    while connections.try_join_next().is_some() {}
    info!(target: "pm::http", connections = connections.len(), "stopping: finishing open connections");
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, all_ended).await.is_err() {
        warn!(target: "pm::http", connections = connections.len(), "the grace period is over; closing connections");
        connections.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_parsed() {
        let limits = "Limit       Soft Limit  Hard Limit  Units\nMax open files    1024    524288    files\n";
        assert_eq!(soft_descriptor_limit(limits), Some(1024));
        assert_eq!(soft_descriptor_limit("Max open files    unlimited    unlimited    files\n"), None);
        assert_eq!(soft_descriptor_limit(""), None);
    }
}
