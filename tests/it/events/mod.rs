//! Event streams: `/events` and `/products/{id}/events`.

mod resuming;
mod streams;

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use crate::support::{TestApp, contract};

/// An event as a client receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedEvent {
    pub id: String,
    pub name: String,
    pub data: Value,
}

/// A client of a stream that reads as browsers do.
pub struct Listener {
    response: reqwest::Response,
    buffer: Vec<u8>,
    ready: VecDeque<ReceivedEvent>,
    last_id: String,
}

impl Listener {
    pub async fn open(app: &TestApp, path: &str) -> Self {
        Self::after(app, path, None).await
    }

    pub async fn after(app: &TestApp, path: &str, last_event_id: Option<&str>) -> Self {
        Self::at(&app.client, &app.url(path), path, last_event_id).await
    }

    pub async fn at(client: &reqwest::Client, url: &str, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = client.get(url);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        contract::check("GET", path, 200, "text/event-stream", b"a stream");
        Self { response, buffer: Vec::new(), ready: VecDeque::new(), last_id: String::new() }
    }

    /// Returns the next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<ReceivedEvent> {
        loop {
            if let Some(received) = self.ready.pop_front() {
                return Some(received);
            }
            let chunk =
                timeout(Duration::from_secs(30), self.response.chunk()).await.expect("nothing for 30 s").unwrap();
            self.buffer.extend_from_slice(&chunk?);
            while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                self.read(std::str::from_utf8(&block).unwrap());
            }
        }
    }

    pub async fn some(&mut self, count: usize) -> Vec<ReceivedEvent> {
        let mut received = Vec::with_capacity(count);
        while received.len() < count {
            received.push(self.next().await.expect("the stream continues"));
        }
        received
    }

    /// Returns the next event of a product; skips events from just before the stream began.
    pub async fn next_of(&mut self, product: &Value) -> ReceivedEvent {
        loop {
            let received = self.next().await.expect("the stream continues");
            assert_ne!(received.name, "reset");
            if received.data["product_id"] == *product {
                return received;
            }
        }
    }

    /// Returns all events until the stream's end.
    pub async fn rest(&mut self) -> Vec<ReceivedEvent> {
        let mut received = Vec::new();
        while let Some(next) = self.next().await {
            received.push(next);
        }
        received
    }

    pub async fn names(&mut self, count: usize) -> Vec<String> {
        self.some(count).await.into_iter().map(|received| received.name).collect()
    }

    pub fn read(&mut self, block: &str) {
        let (mut name, mut data) = (String::new(), String::new());
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => self.last_id = id.to_owned(),
                Some(("event", event)) => name = event.to_owned(),
                Some(("data", text)) => data.push_str(text),
                Some(("retry" | "", _)) => {}
                _ => assert!(line.is_empty(), "{line:?}"),
            }
        }
        if !data.is_empty() {
            let data = serde_json::from_str(&data).unwrap();
            self.ready.push_back(ReceivedEvent { id: self.last_id.clone(), name, data });
        }
    }
}

/// Returns an event's position among all.
fn position(received: &ReceivedEvent) -> (i64, i64) {
    let (tx, id) = received.id.split_once('-').unwrap();
    (tx.parse().unwrap(), id.parse().unwrap())
}

fn in_order(received: &[ReceivedEvent]) -> bool {
    received.windows(2).all(|two| position(&two[0]) < position(&two[1]))
}

/// Writes events with the time `created_at` and this many bytes each.
async fn write_events(app: &TestApp, count: u32, created_at: i64, padding: usize) {
    let data = format!("{{\"product_id\":1,\"text\":\"{}\"}}", "x".repeat(padding));
    app.sql(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO events (product_id, user_id, kind, data, created_at)
         SELECT 1, 'seller', 'product.updated', '{data}', {created_at} FROM n"
    ))
    .await;
}
