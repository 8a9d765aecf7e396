//! TLS connections, and a certificate that changes during them.

use std::{path::Path, time::Duration};

use rcgen::{CertifiedKey, KeyPair};
use tokio_util::sync::CancellationToken;

use crate::support::{Setup, TestApp, app};

/// Creates a new certificate for this machine in two files.
fn write_certificate(directory: &Path) -> CertifiedKey<KeyPair> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made
}

/// Returns a client that trusts only this certificate.
fn trusting(made: &CertifiedKey<KeyPair>) -> reqwest::Client {
    let root = reqwest::Certificate::from_der(made.cert.der()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
}

async fn get(app: &TestApp, client: &reqwest::Client) -> Result<reqwest::Response, reqwest::Error> {
    client.get(format!("https://127.0.0.1:{}/products", app.address.port())).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_completes_http2_requests() {
    let directory = tempfile::tempdir().unwrap();
    let made = write_certificate(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let settings = [("PM_TLS_CERT", cert.as_str()), ("PM_TLS_KEY", key.as_str())];
    app::run_with(Setup::Embedded, &settings, async |app| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/products", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let other = app.another().await;
        let server = tokio::spawn(async move { Box::pin(other.serve(listener, 0, stop)).await.unwrap() });
        let client = trusting(&made);
        assert_eq!(client.get(&url).send().await.unwrap().version(), reqwest::Version::HTTP_2);
        let asking = (0..8).map(|_| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                loop {
                    match client.get(&url).send().await {
                        Ok(answer) if answer.status() == 200 => answered += 1,
                        Ok(answer) => panic!("{}", answer.status()),
                        // The server no longer listens; every accepted request has been answered.
                        Err(error) if error.is_connect() => return answered,
                        Err(error) => panic!("a request was cut off: {error:?}"),
                    }
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stopper.cancel();
        tokio::time::timeout(Duration::from_secs(8), server).await.expect("stopped before the grace is over").unwrap();
        for client in asking {
            assert!(client.await.unwrap() > 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_loaded_without_closing_connections() {
    let directory = tempfile::tempdir().unwrap();
    let first = write_certificate(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let settings = [("PM_TLS_CERT", cert.as_str()), ("PM_TLS_KEY", key.as_str()), ("PM_HSTS", "365d")];
    app::run_with(Setup::Embedded, &settings, async |app| {
        let client = trusting(&first);
        let answer = get(app, &client).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
        // A client without TLS gets no response and affects no other.
        assert!(app.client.get(app.url("/healthz")).send().await.is_err());

        let second = write_certificate(directory.path());
        let newcomer = trusting(&second);
        let begun = std::time::Instant::now();
        while get(app, &newcomer).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the new certificate is not loaded");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(get(app, &client).await.unwrap().status(), 200, "the old connection stays open");
        assert!(get(app, &trusting(&first)).await.is_err(), "a new one sees the new certificate");
    })
    .await;
}
