//! The machine's services. Tests of a missing service are skipped with a message, or fail if `PM_TEST_REQUIRE=all`.

use std::{net::ToSocketAddrs as _, time::Duration};

use tokio::{net::TcpStream, time::timeout};

/// PostgreSQL, with a role that may create databases: `PM_TEST_POSTGRES_URL`, or the default port.
pub async fn postgres_url() -> Option<String> {
    service("PM_TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres", 5432).await
}

/// Redis: `PM_TEST_REDIS_URL`, or the default port.
pub async fn redis_url() -> Option<String> {
    service("PM_TEST_REDIS_URL", "redis://127.0.0.1:6379", 6379).await
}

/// RabbitMQ: `PM_TEST_RABBITMQ_URL`, or the default port and the user guest.
pub async fn rabbitmq_url() -> Option<String> {
    service("PM_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/%2f", 5672).await
}

async fn service(variable: &str, usual: &str, usual_port: u16) -> Option<String> {
    let url = std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
    if answers(&url, usual_port).await {
        return Some(url);
    }
    skip(&format!("the service at {variable}"));
    None
}

/// Prints that a test is skipped because `what` is missing; panics if no test may be skipped.
pub fn skip(what: &str) {
    assert!(
        std::env::var("PM_TEST_REQUIRE").as_deref() != Ok("all"),
        "{what} is missing, and PM_TEST_REQUIRE=all allows no skipped test"
    );
    eprintln!("skipped: {what} is missing");
}

async fn answers(url: &str, usual_port: u16) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or("127.0.0.1").to_owned();
    let Some(address) = (host, url.port().unwrap_or(usual_port)).to_socket_addrs().ok().and_then(|mut all| all.next())
    else {
        return false;
    };
    matches!(timeout(Duration::from_secs(2), TcpStream::connect(address)).await, Ok(Ok(_)))
}
