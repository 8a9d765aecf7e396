//! An S3 server inside the test process: a bucket in a temporary directory, access keys, verified signatures.

use std::path::{Path, PathBuf};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use pm::blobs::{Engine, S3Options};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

const BUCKET: &str = "images";
const ACCESS_KEY_ID: &str = "test-key";
const SECRET_ACCESS_KEY: &str = "test-secret";

/// A server on its own port with one empty bucket; both are removed on drop.
pub struct S3Server {
    endpoint: String,
    root: TempDir,
    task: JoinHandle<()>,
}

impl S3Server {
    /// Starts a server on a free loopback port.
    pub async fn start() -> Self {
        let root = TempDir::new().expect("a directory");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a bucket");
        let files = s3s_fs::FileSystem::new(root.path()).expect("an S3 server over a directory");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let service = service.build();

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let task = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { endpoint, root, task }
    }

    /// Returns the server's URL, as in `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the bucket's name.
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// Returns the directory of the bucket's objects, for tests that read or change them directly.
    pub fn directory(&self) -> PathBuf {
        Path::new(self.root.path()).join(BUCKET)
    }

    /// Returns the valid settings of a client.
    pub fn options(&self) -> S3Options {
        let set = |options: S3Options, (name, value): (&str, String)| options.with(name, &value);
        self.environment().into_iter().fold(S3Options::default(), set)
    }

    /// Returns the same settings as environment variables, for another program.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint().to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
        ]
    }

    /// Opens a store in the bucket, under `prefix` if that is not empty.
    pub fn engine(&self, prefix: &str) -> Engine {
        Engine::S3 { bucket: BUCKET.to_owned(), prefix: prefix.to_owned(), options: self.options() }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
