//! The download settings.

use std::time::Duration;

use super::{resolve::Resolver, values};
use crate::domain::AddressPolicy;

/// Limits and permitted sources of downloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    /// The networks that pm may download from.
    pub policy: AddressPolicy,
    /// Maximum size of an image file in bytes.
    pub max_bytes: u64,
    /// Time limit of one download.
    pub timeout: Duration,
    /// Maximum number of simultaneous downloads from one host per process.
    pub per_host: usize,
}

/// Reads the download settings; returns `None` if one is invalid.
pub(super) fn resolve(resolver: &mut Resolver<'_>) -> Option<Fetching> {
    let policy = resolver.optional("fetch_allow", AddressPolicy::parse);
    let max_bytes = resolver.take("fetch_max_bytes", |text| values::size_within(text, 1 << 10, 1 << 30));
    let timeout = resolver.take("fetch_timeout", values::fetch_timeout);
    let per_host = resolver.take("fetch_per_host", |text| values::count_within(text, 1, 1_024));
    Some(Fetching {
        policy: policy?.unwrap_or_default(),
        max_bytes: max_bytes?,
        timeout: timeout?,
        per_host: usize::try_from(per_host?).unwrap_or(usize::MAX),
    })
}

impl Fetching {
    /// Returns the name and value of each setting.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        vec![("fetch_allow", self.policy.to_string()), ("fetch_per_host", self.per_host.to_string())]
    }
}
