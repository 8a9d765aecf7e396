//! A server that messages are posted to in tests: it notes each and answers what it was told to.

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

/// A message as it arrived.
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

/// A server on a port of its own, which stops when this is dropped.
pub struct Receiver {
    url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    messages: watch::Sender<Vec<Message>>,
    /// The statuses of the next answers, the last one first; 204 when there are none left.
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

    /// Answers the next messages so.
    pub fn answer_next(&self, statuses: &[u16]) {
        *self.state.answers.lock().unwrap() = statuses.iter().rev().copied().collect();
    }

    /// The messages so far.
    pub fn messages(&self) -> Vec<Message> {
        self.state.messages.borrow().clone()
    }

    /// Returns once at least `count` messages have arrived; fails after 30 s.
    pub async fn wait_for(&self, count: usize) -> Vec<Message> {
        let mut messages = self.state.messages.subscribe();
        let enough = messages.wait_for(|messages| messages.len() >= count);
        let arrived = tokio::time::timeout(Duration::from_secs(30), enough).await;
        assert!(arrived.is_ok(), "{} messages came, not {count}", self.messages().len());
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
