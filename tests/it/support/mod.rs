//! Support of the tests: the whole program with its own database, keys and files, and origins that misbehave.

#![allow(dead_code, reason = "not every test uses everything")]

pub mod app;
pub mod contract;
pub mod images;
pub mod issuer;
pub mod origin;
pub mod pgbouncer;
pub mod proxy;
pub mod receiver;
pub mod s3;
mod services;

pub use app::{Setup, TestApp};
pub use origin::Origin;
pub use services::{postgres_url, rabbitmq_url, redis_url, skip};

/// Declares a test that runs on both set-ups: `NAME::embedded` and `NAME::full`.
macro_rules! on_both_setups {
    ($($(#[$meta:meta])* async fn $name:ident($app:ident: &TestApp) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "not every test needs all of its file's imports")]
            use super::*;

            async fn test($app: &crate::support::TestApp) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                crate::support::app::run(crate::support::Setup::Embedded, async |app| test(app).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn full() {
                crate::support::app::run(crate::support::Setup::Full, async |app| test(app).await).await;
            }
        }
    )+};
}
pub(crate) use on_both_setups;
