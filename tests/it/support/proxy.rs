//! A TCP proxy between a client and a server that can cut, reset, stall and restore connections.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::watch,
};

/// A proxy on its own port; it stops on drop.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Pass,
    Cut,
    Reset,
    Stall,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target`.
    pub async fn start(target: impl ToSocketAddrs) -> Self {
        let target = tokio::net::lookup_host(target).await.expect("the target's address").next().expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (mode, changes) = watch::channel(Mode::Pass);
        let (target, current) = watch::channel(target);
        tokio::spawn(async move {
            let mut ended = changes.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    // The proxy was dropped.
                    _ = ended.wait_for(|_| false) => return,
                };
                if let Ok((client, _)) = accepted {
                    let target = *current.borrow();
                    tokio::spawn(join(client, target, changes.clone()));
                }
            }
        });
        Self { address, mode, target }
    }

    /// Returns the proxy's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections, and every new one as soon as it is accepted.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// As [`cut`](Self::cut), with a reset: data in flight are lost.
    pub fn reset(&self) {
        self.mode.send_replace(Mode::Reset);
    }

    /// Closes all connections; forwards new ones to `target` from now on, as after a failover.
    pub fn switch_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
        self.cut();
        self.restore();
    }

    /// Keeps all connections open and accepts new ones, but forwards nothing from now on.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    /// Forwards everything again, including the data held back by a stall.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

async fn join(mut client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if passes(&mut mode).await {
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        // Nagle's algorithm would make the server look slow.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        tokio::select! {
            () = pump(client_reads, server_writes, mode.clone()) => {}
            () = pump(server_reads, client_writes, mode.clone()) => {}
        }
        end(&server, &mode);
    }
    end(&client, &mode);
}

/// With a linger time of zero, closing sends a reset.
fn end(stream: &TcpStream, mode: &watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Reset {
        // A connection that is already closed needs no reset.
        let _ = stream.set_zero_linger();
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = mode.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Reset)) => return,
        };
        if read == 0 || !passes(&mut mode).await || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits for the end of a stall; returns false if the connection must be closed.
async fn passes(mode: &mut watch::Receiver<Mode>) -> bool {
    mode.wait_for(|mode| *mode != Mode::Stall).await.is_ok_and(|mode| *mode == Mode::Pass)
}
