//! Use cases of users and their API keys.

pub(super) mod api_keys;
mod users;
