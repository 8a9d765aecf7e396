//! Client addresses behind proxies. Only the configured proxies are trusted.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The trusted proxies and the header that they set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<IpNet>,
    header: ForwardedHeader,
}

/// The header that proxies set. The server ignores the other one, because a client may have sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto`.
    #[default]
    Customary,
    /// `Forwarded` (RFC 7239).
    Standard,
}

impl ForwardedHeader {
    /// Returns the header's name as in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customary => "x-forwarded-for",
            Self::Standard => "forwarded",
        }
    }

    /// Parses the header's name, case-insensitively.
    ///
    /// # Errors
    /// A message for any other name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = [Self::Customary, Self::Standard];
        known.into_iter().find(|known| text.eq_ignore_ascii_case(known.as_str())).ok_or_else(|| "is not known".into())
    }
}

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address, as reported by the outermost trusted proxy.
    pub address: IpAddr,
    /// Whether the client's connection is encrypted.
    pub secure: bool,
}

impl Proxies {
    /// Parses networks and addresses, separated by commas.
    ///
    /// # Errors
    /// A message that names the first invalid entry.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let read = |entry: &str| {
            let network = entry.parse::<IpNet>().ok();
            let network = network.or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from));
            network.ok_or_else(|| format!("has `{entry}`, which is neither a network nor an address"))
        };
        let networks = entries.map(read).collect::<Result<_, _>>()?;
        Ok(Self { networks, header: ForwardedHeader::default() })
    }

    /// Returns the header that the proxies set.
    pub const fn header(&self) -> ForwardedHeader {
        self.header
    }

    /// Sets the header that the proxies set.
    #[must_use]
    pub fn writing(self, header: ForwardedHeader) -> Self {
        Self { header, ..self }
    }

    /// Whether no proxy is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether `address` is a trusted proxy.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Returns the client of a request that arrived from `peer`.
    ///
    /// Each proxy appends the address of its own client. The list is therefore read from its end, as long as a trusted
    /// proxy reported the entry; earlier entries may be forged.
    pub fn client(&self, peer: Client, headers: &HeaderMap) -> Client {
        if self.networks.is_empty() || !self.contain(peer.address) {
            return peer;
        }
        let hops = match self.header {
            ForwardedHeader::Customary => customary(headers),
            ForwardedHeader::Standard => standard(headers),
        };
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            if let Some(secure) = hop.secure {
                client.secure = secure;
            }
            // An obfuscated or unknown identifier is not an address, so the proxy's own address stays.
            let Some(address) = hop.address else { break };
            client.address = address;
            if !self.contain(address) {
                break;
            }
        }
        client
    }
}

/// Formats the networks as [`parse`](Self::parse) reads them.
impl std::fmt::Display for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

#[derive(Default)]
struct Hop {
    address: Option<IpAddr>,
    secure: Option<bool>,
}

/// Parses the hops of `Forwarded` (RFC 7239).
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

/// Parses the hops of `X-Forwarded-For`; `X-Forwarded-Proto` gives the protocol of the last hop.
fn customary(headers: &HeaderMap) -> Vec<Hop> {
    let addresses = elements(headers, &X_FORWARDED_FOR);
    let mut hops: Vec<_> = addresses.iter().map(|text| Hop { address: address(text), secure: None }).collect();
    let protocol = elements(headers, &X_FORWARDED_PROTO).pop();
    if let (Some(protocol), Some(last)) = (protocol, hops.last_mut()) {
        last.secure = Some(protocol.eq_ignore_ascii_case("https"));
    }
    hops
}

/// Returns the comma-separated elements of all headers with this name.
fn elements(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    // Invalid bytes from a client must not hide the element that the proxy appended.
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let elements = values.flat_map(|value| value.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>());
    elements.collect()
}

/// Parses `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    let without_port = text.rsplit_once(':').filter(|(host, _)| !host.contains(':')).map_or(text, |(host, _)| host);
    without_port.parse().ok()
}

/// Returns the /64 network of an IPv6 address; an IPv4 or IPv4-mapped address is returned as IPv4.
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
        seen_in(ForwardedHeader::Customary, peer, headers)
    }

    fn seen_in(written: ForwardedHeader, peer: &str, headers: &[(&'static str, &'static str)]) -> (String, bool) {
        let proxies = Proxies::parse("10.0.0.0/8, 2001:db8::/32").expect("networks").writing(written);
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let peer = Client { address: peer.parse().expect("an address"), secure: false };
        let client = proxies.client(peer, &headers.iter().map(header).collect());
        (client.address.to_string(), client.secure)
    }

    #[test]
    fn only_configured_proxies_are_trusted() {
        let headers = [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")];
        assert_eq!(seen("10.0.0.1", &headers), ("203.0.113.7".into(), true));
        assert_eq!(seen("::ffff:10.0.0.1", &headers), ("203.0.113.7".into(), true));
        assert_eq!(seen("192.0.2.1", &headers), ("192.0.2.1".into(), false));
        assert_eq!(seen("10.0.0.1", &[]), ("10.0.0.1".into(), false));
    }

    #[test]
    fn the_last_address_that_is_not_a_trusted_proxy_is_the_client() {
        let headers = [("x-forwarded-for", "1.2.3.4, 203.0.113.7"), ("x-forwarded-for", "10.9.9.9")];
        assert_eq!(seen("10.0.0.1", &headers).0, "203.0.113.7");
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "10.1.1.1, 10.2.2.2")]).0, "10.1.1.1");
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "203.0.113.7, invalid")]).0, "10.0.0.1");
    }

    #[test]
    fn the_header_that_proxies_do_not_set_is_ignored() {
        let headers = [
            ("forwarded", "for=1.1.1.1;proto=http, for=\"[2001:db9::7]:4711\";proto=https;by=10.0.0.1"),
            ("x-forwarded-for", "9.9.9.9"),
        ];
        assert_eq!(seen("10.0.0.1", &headers), ("9.9.9.9".into(), false));
        assert_eq!(seen_in(ForwardedHeader::Standard, "10.0.0.1", &headers), ("2001:db9::7".into(), true));
        assert_eq!(seen_in(ForwardedHeader::Standard, "10.0.0.1", &[("forwarded", "for=_hidden")]).0, "10.0.0.1");
        assert_eq!(seen_in(ForwardedHeader::Standard, "10.0.0.1", &headers[1..]).0, "10.0.0.1");
    }

    #[test]
    fn invalid_bytes_from_a_client_do_not_hide_the_proxys_element() {
        let value = HeaderValue::from_bytes(b"\xff\xfe, 203.0.113.7").expect("a value");
        let proxies = Proxies::parse("10.0.0.0/8").expect("networks");
        let peer = Client { address: [10, 0, 0, 1].into(), secure: false };
        let client = proxies.client(peer, &HeaderMap::from_iter([(X_FORWARDED_FOR, value)]));
        assert_eq!(client.address.to_string(), "203.0.113.7");
    }
}
