//! DNS resolver that returns only permitted addresses.
//!
//! This is the only code that resolves names. The connection uses exactly the addresses checked here, so DNS rebinding
//! has no effect. No name is special: `localhost` is resolved and checked like any other.

use std::{io, net::SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::address::AddressPolicy;

/// Resolver that drops addresses that its policy does not permit.
#[derive(Clone, Debug)]
pub(super) struct PublicOnly {
    policy: AddressPolicy,
}

/// Why a name has no usable address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unresolved {
    /// None of its addresses is permitted.
    #[error("the name has no public address")]
    NotPublic,
    /// The name does not exist.
    #[error("the name does not exist")]
    NotFound(#[source] io::Error),
    /// The lookup failed temporarily.
    #[error("DNS lookup failed")]
    Failed(#[source] io::Error),
}

impl PublicOnly {
    pub(super) fn new(policy: AddressPolicy) -> Self {
        Self { policy }
    }

    /// Returns the permitted addresses of `name`, at least one, each with port 0.
    pub(super) async fn lookup(&self, name: &str) -> Result<Vec<SocketAddr>, Unresolved> {
        let found = tokio::net::lookup_host((name, 0)).await.map_err(classify)?;
        self.keep_permitted(found)
    }

    fn keep_permitted(&self, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Unresolved> {
        let kept: Vec<_> = found.filter(|address| self.policy.permits(address.ip())).collect();
        if kept.is_empty() { Err(Unresolved::NotPublic) } else { Ok(kept) }
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Tells a missing name from a failed lookup.
///
/// The standard library drops the `getaddrinfo` code and keeps its message, which is not translated because no locale
/// is set. An unknown message counts as a failed lookup, which is retried.
fn classify(error: io::Error) -> Unresolved {
    const NOT_FOUND: &[&str] = &[
        "Name or service not known",      // glibc, EAI_NONAME
        "No address associated with",     // glibc, EAI_NODATA
        "Name does not resolve",          // musl
        "Name has no usable address",     // musl
        "nodename nor servname provided", // macOS and the BSDs
    ];
    let text = error.to_string();
    if NOT_FOUND.iter().any(|sentence| text.contains(sentence)) {
        Unresolved::NotFound(error)
    } else {
        Unresolved::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &str) -> PublicOnly {
        PublicOnly::new(AddressPolicy::parse(allow).expect("a valid list"))
    }

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 0)).collect()
    }

    #[tokio::test]
    async fn localhost_is_checked_by_its_addresses() {
        for name in ["localhost", "LOCALHOST"] {
            let refused = guard("").lookup(name).await.expect_err("loopback is not public");
            assert!(!matches!(refused, Unresolved::Failed(_)), "{name}: {refused:?}");
        }
        // A name with a trailing dot is sent to a DNS server, which may be unavailable.
        guard("").lookup("localhost.").await.expect_err("loopback is not public");
        let found = guard("127.0.0.0/8,::1").lookup("localhost").await.expect("the hosts file knows localhost");
        assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }

    #[test]
    fn only_permitted_addresses_are_returned() {
        let found = addresses(&["10.0.0.1", "1.1.1.1", "::ffff:127.0.0.1", "2606:4700::1111", "fd00::1"]);
        let kept = guard("").keep_permitted(found.into_iter()).expect("two are public");
        assert_eq!(kept, addresses(&["1.1.1.1", "2606:4700::1111"]));
    }

    #[test]
    fn a_name_with_only_private_addresses_is_refused() {
        let found = addresses(&["10.0.0.1", "169.254.169.254", "::1"]);
        assert!(matches!(guard("").keep_permitted(found.into_iter()), Err(Unresolved::NotPublic)));
    }

    #[test]
    fn a_missing_name_is_distinguished_from_a_failed_lookup() {
        let failure = |text: &str| classify(io::Error::other(format!("failed to lookup address information: {text}")));
        assert!(matches!(failure("Name or service not known"), Unresolved::NotFound(_)));
        assert!(matches!(failure("No address associated with hostname"), Unresolved::NotFound(_)));
        assert!(matches!(failure("Temporary failure in name resolution"), Unresolved::Failed(_)));
        assert!(matches!(failure("Non-recoverable failure in name resolution"), Unresolved::Failed(_)));
    }
}
