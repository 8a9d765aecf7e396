//! A product catalog with asynchronous image processing: the library of the `pm` binary.
//!
//! `docs/ARCHITECTURE.md` follows a request and an image through the code. Each module imports only modules to its
//! right in this list: `cli` → `config`, `telemetry`, `app` → `http`, `worker` → `jobs`, `maintenance`, `resize` →
//! `catalog`, `health` → `api` → `auth`, `cache`, `queue`, `blobs`, `fetch`, `isolation` → `db` → `domain`, `imaging` →
//! `code`, `clock`, `memory`, `passphrase`, `reload`, `retry`, `secret_file`, `secret_keys` → `private_files`,
//! `secret`.

pub mod api;
pub mod app;
pub mod auth;
pub mod blobs;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod code;
pub mod config;
pub mod db;
pub mod domain;
pub mod fetch;
pub mod health;
pub mod http;
pub mod imaging;
pub mod isolation;
pub mod jobs;
pub mod maintenance;
pub mod memory;
pub mod passphrase;
pub mod private_files;
pub mod queue;
pub mod reload;
pub mod resize;
pub mod retry;
pub mod secret;
pub mod secret_file;
pub mod secret_keys;
pub mod telemetry;
pub mod worker;
