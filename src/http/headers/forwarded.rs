//! Where a client is when proxies stand between: what they say is believed from those alone that the operator named.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The proxies whose word counts, and the header that they write it in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<IpNet>,
    header: ForwardedHeader,
}

/// The one header that proxies write. The other comes from clients, if at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` beside it.
    #[default]
    Customary,
    /// `Forwarded` (RFC 7239).
    Standard,
}

impl ForwardedHeader {
    /// The header's name as it is set.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customary => "x-forwarded-for",
            Self::Standard => "forwarded",
        }
    }

    /// Reads the header's name.
    ///
    /// # Errors
    /// A sentence for any other name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = [Self::Customary, Self::Standard];
        known.into_iter().find(|known| text.eq_ignore_ascii_case(known.as_str())).ok_or_else(|| "is not known".into())
    }
}

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
        let networks = entries.map(read).collect::<Result<_, _>>()?;
        Ok(Self { networks, header: ForwardedHeader::default() })
    }

    /// The header that they write.
    pub const fn header(&self) -> ForwardedHeader {
        self.header
    }

    /// The same proxies, which write this header.
    #[must_use]
    pub fn writing(self, header: ForwardedHeader) -> Self {
        Self { header, ..self }
    }

    /// Whether nobody's word counts.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether `address` is one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Where the client of a request is that came from `peer`.
    ///
    /// Each proxy writes down whom it was called by, at the end. So the list is walked from its end for as long as the one
    /// who wrote is believed; anything before that may be invented.
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
        f.write_str(&self.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
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
    // What a client wrote before it must not hide what the proxy wrote at the end.
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let elements = values.flat_map(|value| value.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>());
    elements.collect()
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
    fn the_header_that_proxies_do_not_write_is_ignored() {
        let told = [
            ("forwarded", "for=1.1.1.1;proto=http, for=\"[2001:db9::7]:4711\";proto=https;by=10.0.0.1"),
            ("x-forwarded-for", "9.9.9.9"),
        ];
        assert_eq!(seen("10.0.0.1", &told), ("9.9.9.9".into(), false));
        assert_eq!(seen_in(ForwardedHeader::Standard, "10.0.0.1", &told), ("2001:db9::7".into(), true));
        assert_eq!(seen_in(ForwardedHeader::Standard, "10.0.0.1", &[("forwarded", "for=_hidden")]).0, "10.0.0.1");
        assert_eq!(seen_in(ForwardedHeader::Standard, "10.0.0.1", &told[1..]).0, "10.0.0.1");
    }

    #[test]
    fn what_a_client_wrote_does_not_hide_what_the_proxy_wrote() {
        let value = HeaderValue::from_bytes(b"\xff\xfe, 203.0.113.7").expect("a value");
        let proxies = Proxies::parse("10.0.0.0/8").expect("networks");
        let peer = Client { address: [10, 0, 0, 1].into(), secure: false };
        let client = proxies.client(peer, &HeaderMap::from_iter([(X_FORWARDED_FOR, value)]));
        assert_eq!(client.address.to_string(), "203.0.113.7");
    }
}
