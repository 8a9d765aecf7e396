//! Tables of users and their API keys.

pub mod api_keys;
pub mod users;
