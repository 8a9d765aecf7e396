//! Memory of a real process during many large uploads, and afterwards.
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use assert_cmd::cargo::cargo_bin;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const UPLOADS: usize = 8;
/// Two files of 20 MB while their headers are read, and buffers.
const MAX_GROWTH_MEANWHILE_KIB: u64 = 64 * 1024;
/// A body of 4 MB three times, and what the first request allocates.
const MAX_BATCH_KIB: u64 = 32 * 1024;
const MAX_GROWTH_AFTERWARDS_KIB: u64 = 24 * 1024;

/// A `pm serve` that is killed on drop.
pub(crate) struct Serving {
    pub child: Child,
    pub address: SocketAddr,
    /// Its output after the line that names its address.
    pub lines: std::sync::mpsc::Receiver<String>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `pm serve` with these environment variables in `directory`, on its own port.
pub(crate) fn serving(directory: &std::path::Path, words: &[&str], variables: &[(&str, &str)]) -> Serving {
    let mut command = Command::new(cargo_bin!("pm"));
    command.env_clear().envs(variables.iter().copied()).env("PM_LOG_FORMAT", "json").current_dir(directory);
    let command = command.args(["serve", "--listen", "127.0.0.1:0"]).args(words).stdin(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let address = loop {
        let line = lines.recv_timeout(Duration::from_secs(60)).expect("it prints its address");
        if let Some((_, address)) = line.split_once("listening on ") {
            let address = address.split_once("://").unwrap().1;
            let end = address.find('"').unwrap_or(address.len());
            break address[..end].parse().unwrap();
        }
    };
    Serving { child, address, lines }
}

/// Returns a value in KiB of `/proc/PID/status`, such as `VmRSS`.
fn kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Returns a unique bitmap of about 20 MB.
fn bitmap(number: u8) -> Vec<u8> {
    let (width, height) = (2_600_u32, 2_600_u32);
    let pixels = width * 3 * height;
    let mut bytes = Vec::with_capacity(54 + pixels as usize);
    bytes.extend_from_slice(b"BM");
    for word in [54 + pixels, 0, 54, 40, width, height] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[1, 0, 24, 0]);
    for word in [0, pixels, 2_835, 2_835, 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.resize(54 + pixels as usize, number);
    bytes
}

/// Returns a form with a bitmap, made before connecting, since a client has 5 s for its request head.
fn form(number: u8) -> Vec<u8> {
    let mut body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bmp\"\r\n\r\n".to_vec();
    body.extend_from_slice(&bitmap(number));
    body.extend_from_slice(b"\r\n--b--\r\n");
    body
}

async fn upload(address: SocketAddr, path: String, body: Vec<u8>) -> u16 {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses the file need not read all of it.
    let written = stream.write_all(&body).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status line: {written:?}, {read:?}, {text:?}"))
}

/// Posts `body` with an idempotency key; returns the status and the peak of memory above that before, in KiB.
async fn post_with_key(server: &Serving, key: &str, body: String) -> (u16, u64) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let before = kib(server.child.id(), "VmRSS");
    fs::write(format!("/proc/{}/clear_refs", server.child.id()), "5").unwrap();
    let request = client.post(format!("http://{}/products:batch", server.address));
    let request = request.header("Content-Type", "application/json").header("Idempotency-Key", key).body(body);
    let status = request.send().await.unwrap().status().as_u16();
    (status, kib(server.child.id(), "VmHWM").saturating_sub(before))
}

#[tokio::test]
async fn a_large_body_with_an_idempotency_key_uses_little_memory() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let list = vec!["1"; 1_500_000].join(",");
    let fields = vec!["\"\":0"; 750_000].join(",");
    for (key, body, status) in [
        ("numbers", format!("[{list}]"), 422),
        ("list", format!("[{{\"unknown\":[{list}]}}]"), 200),
        ("object", format!("[{{\"unknown\":{{{fields}}}}}]"), 200),
    ] {
        let server = serving(directory.path(), &["--no-worker"], &[]);
        let (answered, peak) = post_with_key(&server, key, body).await;
        assert_eq!(answered, status, "{key}");
        // The body itself, its buffer while it grows, and the item that is parsed.
        assert!(peak < MAX_BATCH_KIB, "{peak} KiB more than before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_concurrent_uploads_of_20_mb_use_little_memory_and_free_it() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let server = serving(directory.path(), &["--no-worker"], &[]);
    let (pid, address) = (server.child.id(), server.address);
    let product = json!({
        "user_id": "seller", "product_name": "large images", "product_images": [], "product_price": 1,
        "product_description": "",
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let created = client.post(format!("http://{address}/products")).json(&product).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let path = format!("/products/{}/images", created.json::<serde_json::Value>().await.unwrap()["id"]);
    // The first upload's one-time allocations do not count.
    assert_eq!(upload(address, path.clone(), form(255)).await, 202);

    let forms: Vec<_> = (0..UPLOADS).map(|number| form(u8::try_from(number).unwrap())).collect();
    let before = kib(pid, "VmRSS");
    // The peak is measured from here on.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let uploads = forms.into_iter().map(|form| upload(address, path.clone(), form));
    let statuses = futures_util::future::join_all(uploads).await;
    assert_eq!(statuses, vec![202; UPLOADS]);
    let peak = kib(pid, "VmHWM").saturating_sub(before);
    assert!(peak < MAX_GROWTH_MEANWHILE_KIB, "{peak} KiB more than the {before} KiB before");
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut kept = u64::MAX;
    while kept >= MAX_GROWTH_AFTERWARDS_KIB && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        kept = kib(pid, "VmRSS").saturating_sub(before);
    }
    assert!(kept < MAX_GROWTH_AFTERWARDS_KIB, "{kept} KiB more than the {before} KiB before are kept");
    let incoming = fs::read_dir(directory.path().join("pm-data/blobs/.incoming")).map_or(0, Iterator::count);
    assert_eq!(incoming, 0, "no temporary file is left");
}
