//! Where a client is when proxies stand between: what they say is believed from those alone that the operator named.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The proxies whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's own address, as far as anybody trustworthy has seen it.
    pub address: IpAddr,
    /// Whether the client's own connection is encrypted.
    pub secure: bool,
}

impl Proxies {
    /// Reads networks and single addresses, separated by commas.
    ///
    /// # Errors
    /// A sentence that names the first entry that is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let read = |entry: &str| {
            let network = entry.parse::<IpNet>().ok();
            let network = network.or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from));
            network.ok_or_else(|| format!("has `{entry}`, which is neither a network nor an address"))
        };
        entries.map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nobody's word counts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Where the client of a request is that came from `peer`.
    ///
    /// Each proxy writes down whom it was called by, at the end. So the list is walked from its end for as long as the one
    /// who wrote is believed; anything before that may be invented.
    pub fn client(&self, peer: Client, headers: &HeaderMap) -> Client {
        if self.0.is_empty() || !self.contain(peer.address) {
            return peer;
        }
        let hops = if headers.contains_key(header::FORWARDED) { standard(headers) } else { customary(headers) };
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            if let Some(secure) = hop.secure {
                client.secure = secure;
            }
            // A name that a proxy made up for its caller says no more than the proxy's own address does.
            let Some(address) = hop.address else { break };
            client.address = address;
            if !self.contain(address) {
                break;
            }
        }
        client
    }
}

/// Networks separated by commas, as they are set.
impl std::fmt::Display for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

#[derive(Default)]
struct Hop {
    address: Option<IpAddr>,
    secure: Option<bool>,
}

/// The hops of `Forwarded` (RFC 7239).
fn standard(headers: &HeaderMap) -> Vec<Hop> {
    let elements = elements(headers, &header::FORWARDED);
    let hop = |element: &str| {
        let mut hop = Hop::default();
        for pair in element.split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => hop.address = address(value),
                "proto" => hop.secure = Some(value.eq_ignore_ascii_case("https")),
                _ => {}
            }
        }
        hop
    };
    elements.iter().map(|element| hop(element)).collect()
}

/// The hops of `X-Forwarded-For`, which says nothing of protocols; `X-Forwarded-Proto` speaks of the last one.
fn customary(headers: &HeaderMap) -> Vec<Hop> {
    let addresses = elements(headers, &X_FORWARDED_FOR);
    let mut hops: Vec<_> = addresses.iter().map(|text| Hop { address: address(text), secure: None }).collect();
    let protocol = elements(headers, &X_FORWARDED_PROTO).pop();
    if let (Some(protocol), Some(last)) = (protocol, hops.last_mut()) {
        last.secure = Some(protocol.eq_ignore_ascii_case("https"));
    }
    hops
}

/// What stands between commas, over all headers of this name.
fn elements(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|element| element.trim().to_owned()).collect()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    let without_port = text.rsplit_once(':').filter(|(host, _)| !host.contains(':')).map_or(text, |(host, _)| host);
    without_port.parse().ok()
}

/// One IPv6 client has a whole network of 64 bits; an IPv4 address in IPv6's clothes is itself.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn seen(peer: &str, headers: &[(&'static str, &'static str)]) -> (String, bool) {
        let proxies = Proxies::parse("10.0.0.0/8, 2001:db8::/32").expect("networks");
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let peer = Client { address: peer.parse().expect("an address"), secure: false };
        let client = proxies.client(peer, &headers.iter().map(header).collect());
        (client.address.to_string(), client.secure)
    }

    #[test]
    fn only_named_proxies_are_believed() {
        let told = [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")];
        assert_eq!(seen("10.0.0.1", &told), ("203.0.113.7".into(), true));
        assert_eq!(seen("::ffff:10.0.0.1", &told), ("203.0.113.7".into(), true));
        assert_eq!(seen("192.0.2.1", &told), ("192.0.2.1".into(), false));
        assert_eq!(seen("10.0.0.1", &[]), ("10.0.0.1".into(), false));
    }

    #[test]
    fn the_last_address_that_no_proxy_has_is_the_client() {
        let told = [("x-forwarded-for", "1.2.3.4, 203.0.113.7"), ("x-forwarded-for", "10.9.9.9")];
        assert_eq!(seen("10.0.0.1", &told).0, "203.0.113.7");
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "10.1.1.1, 10.2.2.2")]).0, "10.1.1.1");
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "203.0.113.7, nonsense")]).0, "10.0.0.1");
    }

    #[test]
    fn the_standard_header_goes_before_the_customary_one() {
        let told = [
            ("forwarded", "for=1.1.1.1;proto=http, for=\"[2001:db9::7]:4711\";proto=https;by=10.0.0.1"),
            ("x-forwarded-for", "9.9.9.9"),
        ];
        assert_eq!(seen("10.0.0.1", &told), ("2001:db9::7".into(), true));
        assert_eq!(seen("10.0.0.1", &[("forwarded", "for=_hidden")]).0, "10.0.0.1");
    }
}
