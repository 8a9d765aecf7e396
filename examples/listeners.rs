//! Opens many event streams on a running server; prints the server's memory for them, and the latency of an event to
//! all of them.
//!
//! ```sh
//! pm serve & cargo run --release --example listeners -- 127.0.0.1:8080 1000 $!
//! ```

use std::{error::Error, time::Instant};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(count), Some(process)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(
            "three arguments are needed: the server's address, how many streams, the server's process id".into()
        );
    };
    let count: usize = count.parse()?;
    create_product(&address).await?;
    let before = resident_kib(&process)?;
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(open(&address).await?);
    }
    let after = resident_kib(&process)?;
    println!("{count} streams are open; the server has {before} KiB without and {after} KiB with them");

    let begun = Instant::now();
    let all = streams.into_iter().map(|mut stream| tokio::spawn(async move { until_created(&mut stream).await }));
    let all: Vec<_> = all.collect();
    create_product(&address).await?;
    for task in all {
        task.await??;
    }
    println!("all of them had an event {} ms after its request was sent", begun.elapsed().as_millis());
    println!("the server has {} KiB now", resident_kib(&process)?);
    Ok(())
}

async fn open(address: &str) -> Result<BufReader<TcpStream>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut stream = BufReader::with_capacity(1_024, stream);
    until(&mut stream, "retry: ").await?;
    Ok(stream)
}

async fn until_created(stream: &mut BufReader<TcpStream>) -> Result<(), Failure> {
    until(stream, "event: product.created").await
}

async fn until(stream: &mut BufReader<TcpStream>, wanted: &str) -> Result<(), Failure> {
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err("the server ended the connection".into());
        }
        if line.starts_with("HTTP/") && !line.contains(" 200 ") {
            return Err(format!("the server answers {}", line.trim()).into());
        }
        if line.starts_with(wanted) {
            return Ok(());
        }
    }
}

async fn create_product(address: &str) -> Result<(), Failure> {
    let body = r#"{"user_id":"listeners","product_name":"Sample Product","product_price":1}"#;
    let head =
        format!("POST /products HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close");
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).await?;
    if status.contains(" 201 ") { Ok(()) } else { Err(format!("the server answers {}", status.trim()).into()) }
}

fn resident_kib(process: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no figure of memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
