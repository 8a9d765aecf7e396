//! Listeners on every address of an isolated network, and its name server. Records connections to all addresses but the
//! public origin's; the origin serves an image and redirects.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::forbidden;
use crate::images;

/// A public address that belongs to this network namespace.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
const PUBLIC_PORT: u16 = 8_000;

/// The recorded connections.
#[derive(Clone, Debug, Default)]
pub struct Trap {
    caught: Arc<Mutex<Vec<(SocketAddr, String)>>>,
    served: Arc<AtomicUsize>,
}

impl Trap {
    /// Listens on all addresses.
    pub async fn set() -> anyhow::Result<Self> {
        let trap = Self::default();
        for port in [80, 443, forbidden::PORT, PUBLIC_PORT] {
            let everywhere = TcpListener::bind(("::", port)).await;
            // Without IPv6 in the kernel only IPv4 is tested.
            let listener = match everywhere {
                Ok(listener) => listener,
                Err(_) => TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("listening on {port}"))?,
            };
            tokio::spawn(trap.clone().accept(listener));
        }
        let names = UdpSocket::bind("127.0.0.53:53").context("listening as a name server")?;
        std::thread::spawn(move || answer_names(&names));
        Ok(trap)
    }

    /// Returns connections to forbidden addresses since the last [`forget`](Self::forget), with their requests.
    pub fn caught(&self) -> Vec<(SocketAddr, String)> {
        self.caught.lock().clone()
    }

    /// Clears the record.
    pub fn forget(&self) {
        self.caught.lock().clear();
    }

    /// Returns the number of images that the public origin has served.
    pub fn served(&self) -> usize {
        self.served.load(Relaxed)
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut local) = stream.local_addr() else { continue };
            local.set_ip(local.ip().to_canonical());
            let is_public = local.ip() == IpAddr::V4(PUBLIC);
            // Any connection counts, whatever its request.
            let place = (!is_public).then(|| {
                let mut caught = self.caught.lock();
                caught.push((local, String::new()));
                caught.len() - 1
            });
            tokio::spawn(self.clone().serve(stream, place));
        }
    }

    async fn serve(self, mut stream: TcpStream, place: Option<usize>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if let Some(place) = place
            && let Some((_, noted)) = self.caught.lock().get_mut(place)
        {
            noted.clone_from(&path);
        }
        let answer = match path.strip_prefix("/to?") {
            Some(target) => {
                let pair = format!("u={target}");
                let target = url::form_urlencoded::parse(pair.as_bytes()).next();
                let target = target.map(|(_, value)| value.into_owned()).unwrap_or_default();
                // A line break in a header would end it.
                let target = target.replace(['\r', '\n'], "");
                format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .into_bytes()
            }
            None => {
                self.served.fetch_add(1, Relaxed);
                let image = images::jpeg(64, 48);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", image.len());
                [head.into_bytes(), image].concat()
            }
        };
        // A closed connection needs no answer.
        let _ = stream.write_all(&answer).await;
    }
}

fn escaped(url: &str) -> String {
    url::form_urlencoded::byte_serialize(url.as_bytes()).collect()
}

/// Returns the same target behind the public origin: after one redirect, and after two.
pub fn redirects_to(target: &str) -> [String; 2] {
    let once = format!("http://{PUBLIC}:{PUBLIC_PORT}/to?{}", escaped(target));
    let twice = format!("http://public.test:{PUBLIC_PORT}/to?{}", escaped(&once));
    [once, twice]
}

/// Returns URLs that may be fetched.
pub fn public_urls() -> Vec<String> {
    let image = format!("http://public.test:{PUBLIC_PORT}/a.jpg");
    vec![
        format!("http://{PUBLIC}:{PUBLIC_PORT}/b.jpg"),
        // One of its two addresses is private.
        format!("http://both.test:{PUBLIC_PORT}/c.jpg"),
        format!("http://{PUBLIC}:{PUBLIC_PORT}/to?{}", escaped(&image)),
        image,
    ]
}

/// Answers DNS queries one at a time, on a thread of its own.
fn answer_names(socket: &UdpSocket) {
    let mut question = [0; 512];
    let mut flips = 0;
    while let Ok((length, client)) = socket.recv_from(&mut question) {
        if let Some(answer) = answer(&question[..length], &mut flips) {
            // The client repeats a query whose answer is lost.
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// Returns the answer to an address query for one of our names; NXDOMAIN for other names.
fn answer(question: &[u8], flips: &mut usize) -> Option<Vec<u8>> {
    let (mut place, mut labels) = (12, Vec::new());
    while *question.get(place)? > 0 {
        let length = usize::from(question[place]);
        labels.push(String::from_utf8_lossy(question.get(place + 1..place + 1 + length)?).to_lowercase());
        place += 1 + length;
    }
    let kind = u16::from_be_bytes([*question.get(place + 1)?, *question.get(place + 2)?]);
    let name = labels.join(".");
    let known = addresses(&name, kind, flips);
    let asked = question.get(12..place + 5)?;
    let (found, code) = known.map_or((Vec::new(), 3), |found| (found, 0));
    let mut answer = question[..2].to_vec();
    answer.extend([0x84, 0x80 | code, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    answer.extend(asked);
    for ip in found {
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        // The name as a pointer, its type, class IN, TTL 0.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0, 0, octets.len() as u8]);
        answer.extend(octets);
    }
    Some(answer)
}

/// Returns the addresses of a name for a type: 1 for IPv4, 28 for IPv6.
fn addresses(name: &str, kind: u16, flips: &mut usize) -> Option<Vec<IpAddr>> {
    let four = |ip: [u8; 4]| if kind == 1 { vec![IpAddr::from(ip)] } else { Vec::new() };
    let six = |ip: &str| if kind == 28 { ip.parse().into_iter().collect() } else { Vec::new() };
    Some(match name {
        "public.test" => four(PUBLIC.octets()),
        "both.test" if kind == 1 => vec![IpAddr::from([10, 1, 2, 3]), IpAddr::V4(PUBLIC)],
        "both.test" => Vec::new(),
        "loopback.test" => four([127, 0, 0, 1]),
        "private.test" => four([10, 1, 2, 3]),
        "metadata.test" => four([169, 254, 169, 254]),
        "mapped.test" => six("::ffff:127.0.0.1"),
        "nat64.test" => six("64:ff9b::10.0.0.1"),
        "sixth.test" => six("fd00:ec2::254"),
        // Public at the check, private at the connection, and so on.
        "flip.test" if kind == 1 => {
            *flips += 1;
            vec![if *flips % 2 == 1 { IpAddr::V4(PUBLIC) } else { IpAddr::from([127, 0, 0, 1]) }]
        }
        "flip.test" => Vec::new(),
        _ => return None,
    })
}
