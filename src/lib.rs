//! A product catalog with asynchronous image processing: the library of the `pm` binary.
//!
//! This program creates a catalog on SQLite in the directory `data`, adds a product, processes its images and reads
//! their renditions:
//!
//! ```no_run
//! use std::{error::Error, path::Path};
//!
//! use pm::{
//!     app::App,
//!     blobs::BlobKey,
//!     config::{self, Flags},
//!     domain::NewProduct,
//! };
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn Error>> {
//!     let environment = [("PM_DATA_DIR".to_owned(), "data".to_owned())];
//!     let app = App::build(config::load(&Flags::default(), Path::new("."), environment)?).await?;
//!     let json = br#"{"user_id": "seller", "product_name": "Lamp", "product_description": "Red.",
//!         "product_images": ["https://shop.example/lamp.jpg"], "product_price": 19.90}"#;
//!     let created = app.catalog.create(NewProduct::from_json(json, app.catalog.policy())??, None).await?;
//!     app.worker(2)?.drain().await?;
//!     let product = app.catalog.product(created.id).await?;
//!     for rendition in product.images.iter().flat_map(|image| &image.renditions) {
//!         let key = BlobKey::parse(&rendition.key).ok_or("not a key")?;
//!         let bytes = app.blobs.read(&key).await?.ok_or("the blob is missing")?;
//!         println!("{}: {} bytes of {}", rendition.preset, bytes.len(), rendition.format);
//!     }
//!     Ok(())
//! }
//! ```
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
