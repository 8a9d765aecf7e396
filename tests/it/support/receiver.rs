//! A webhook receiver for tests: records each delivery and answers with a configured status.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// A received delivery.
#[derive(Clone, Debug)]
pub struct Message {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A server on its own port, which stops on drop.
pub struct Receiver {
    url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    messages: watch::Sender<Vec<Message>>,
    /// The statuses of the next responses, last one first; 204 if none are left.
    answers: Mutex<Vec<u16>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let state = Arc::new(State { messages: watch::Sender::default(), answers: Mutex::default() });
        let task = tokio::spawn(accept(listener, state.clone()));
        Self { url, state, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets the statuses of the next responses.
    pub fn answer_next(&self, statuses: &[u16]) {
        *self.state.answers.lock().unwrap() = statuses.iter().rev().copied().collect();
    }

    /// Returns the deliveries so far.
    pub fn messages(&self) -> Vec<Message> {
        self.state.messages.borrow().clone()
    }

    /// Waits for at least `count` deliveries; fails after 30 s.
    pub async fn wait_for(&self, count: usize) -> Vec<Message> {
        let mut messages = self.state.messages.subscribe();
        let enough = messages.wait_for(|messages| messages.len() >= count);
        let arrived = tokio::time::timeout(Duration::from_secs(30), enough).await;
        assert!(arrived.is_ok(), "{} deliveries arrived, not {count}", self.messages().len());
        self.messages()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        let service = service_fn(move |request| note(request, state.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn note(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let status = state.answers.lock().unwrap().pop().unwrap_or(204);
    state.messages.send_modify(|messages| messages.push(Message { headers: head.headers, body }));
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}
