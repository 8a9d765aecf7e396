//! Tests through real interfaces: the HTTP API, the workers, the engines and the command line, on SQLite alone and on
//! PostgreSQL with Redis and RabbitMQ.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod api;
mod auth;
mod cli;
mod engines;
mod events;
mod http;
mod keep;
mod memory;
mod migrate;
mod outage;
mod postgres;
mod reload;
mod schema_change;
mod service;
mod support;
mod webhooks;
mod worker;
