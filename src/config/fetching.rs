//! The settings of downloads.

use std::time::Duration;

use super::{resolve::Resolver, values};
use crate::domain::AddressPolicy;

/// Where images are downloaded from, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    /// Where images may come from.
    pub policy: AddressPolicy,
    /// The largest image that is read, in bytes.
    pub max_bytes: u64,
    /// The longest that one download may take.
    pub timeout: Duration,
    /// Downloads from one host at a time in one process.
    pub per_host: usize,
}

/// Reads every setting of downloads; `None` if one of them is wrong.
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
    /// Each setting by its name in a file, as text.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        vec![
            ("fetch_allow", self.policy.to_string()),
            ("fetch_max_bytes", self.max_bytes.to_string()),
            ("fetch_timeout", format!("{}ms", self.timeout.as_millis())),
            ("fetch_per_host", self.per_host.to_string()),
        ]
    }
}
