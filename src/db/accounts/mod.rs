//! Rows of users and of their API keys.

pub mod api_keys;
pub mod users;
