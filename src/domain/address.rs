//! Checks URLs and IP addresses that images are downloaded from and webhooks are sent to. Pure.
//!
//! It keeps downloads out of the internal network of `pm`. It never resolves names: the code that resolves a name must
//! check each result with [`AddressPolicy::permits`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// Maximum length of a URL in bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// Permitted IP addresses: all public ones, and an allow list.
///
/// The default has an empty allow list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
}

/// Why a URL is rejected; the text is meant for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The URL is longer than [`MAX_URL_BYTES`].
    #[error("the URL is longer than 2,048 bytes")]
    TooLong,
    /// The text is not an absolute URL.
    #[error("the text is not a valid absolute URL")]
    Malformed,
    /// The URL has another scheme than http or https.
    #[error("only http and https URLs are allowed")]
    Scheme,
    /// The URL contains a user name or a password.
    #[error("a URL must not contain a user name or a password")]
    Userinfo,
    /// The port is that of another service.
    #[error("port {0} is not allowed, only 80, 443 and 1024 or higher")]
    Port(u16),
    /// The host is an IP address that is not public.
    #[error("{0} is a private address")]
    PrivateAddress(IpAddr),
    /// The host is a name of this machine.
    #[error("{0} is a private name")]
    PrivateName(String),
}

impl AddressPolicy {
    /// Creates a policy that permits public addresses and those in `allow`.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow }
    }

    /// Parses a comma-separated list of networks and addresses, such as `127.0.0.0/8, 10.1.2.3, fd00::/8`.
    ///
    /// # Errors
    /// A message with the first invalid entry.
    pub fn parse(list: &str) -> Result<Self, String> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(parse_net).collect::<Result<_, _>>().map(Self::new)
    }

    /// Returns whether a connection to `ip` is permitted: it is global unicast or in the allow list.
    ///
    /// An IPv4 address embedded in an IPv6 address is checked itself, so no notation of a private address is permitted.
    pub fn permits(&self, ip: IpAddr) -> bool {
        // A connection to a mapped address is an IPv4 connection.
        let public = match ip.to_canonical() {
            IpAddr::V4(v4) => is_public_v4(v4),
            IpAddr::V6(v6) => is_public_v6(v6),
        };
        public || self.allows(ip)
    }

    /// Parses a URL from a client and checks everything that needs no DNS lookup.
    ///
    /// The caller must use the returned URL, not the text: two parsers may find different hosts in one text.
    ///
    /// # Errors
    /// The [`Refusal`] with the reason.
    pub fn check_url(&self, url: &str) -> Result<Url, Refusal> {
        if url.len() > MAX_URL_BYTES {
            return Err(Refusal::TooLong);
        }
        let url = Url::parse(url).map_err(|_| Refusal::Malformed)?;
        self.check(&url)?;
        Ok(url)
    }

    /// Checks a parsed URL, such as the target of a redirect.
    ///
    /// # Errors
    /// See [`check_url`](Self::check_url), except for the length.
    pub fn check(&self, url: &Url) -> Result<(), Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Userinfo);
        }
        let literal = match url.host().ok_or(Refusal::Malformed)? {
            Host::Ipv4(v4) => Some(IpAddr::V4(v4)),
            Host::Ipv6(v6) => Some(IpAddr::V6(v6)),
            Host::Domain(name) => {
                self.check_name(name)?;
                None
            }
        };
        if let Some(ip) = literal.filter(|ip| !self.permits(*ip)) {
            return Err(Refusal::PrivateAddress(ip));
        }
        let port = url.port_or_known_default().ok_or(Refusal::Malformed)?;
        let usual = matches!(port, 80 | 443 | 1_024..);
        if usual || literal.is_some_and(|ip| self.allows(ip)) { Ok(()) } else { Err(Refusal::Port(port)) }
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let local = bare == "localhost" || bare.ends_with(".localhost");
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if local && !loopback.into_iter().any(|ip| self.allows(ip)) { Err(Refusal::PrivateName(bare)) } else { Ok(()) }
    }

    fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.allow.iter().any(|net| net.contains(&ip))
    }
}

impl fmt::Display for AddressPolicy {
    /// Formats the allow list for [`AddressPolicy::parse`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, net) in self.allow.iter().enumerate() {
            write!(f, "{}{net}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn parse_net(entry: &str) -> Result<IpNet, String> {
    let single = || entry.parse::<IpAddr>().map(IpNet::from);
    let net = entry.parse::<IpNet>().or_else(|_| single());
    net.map_err(|_| format!("`{entry}` is neither an IP address nor a network such as 10.0.0.0/8"))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks that are not public.
const SPECIAL_V4: &[Ipv4Net] = &[
    v4(0, 0, 0, 0, 8),        // this network
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // carrier-grade NAT
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // Azure platform service, reachable only from virtual machines
    v4(169, 254, 0, 0, 16),   // link-local, including cloud metadata services
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 88, 99, 0, 24),   // 6to4 relays, retired
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, and the broadcast address
];

/// The only IPv6 network with global unicast addresses.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// Networks within [`GLOBAL_V6`] that are not public.
/// Some are retired tunnels with an embedded IPv4 address; they are rejected whatever that address is.
const SPECIAL_V6: &[Ipv6Net] = &[
    v6(0x2001, 0, 23),      // protocol assignments, including Teredo
    v6(0x2001, 0x0db8, 32), // documentation
    v6(0x2002, 0, 16),      // 6to4 tunnels
    v6(0x3fff, 0, 20),      // documentation
];

/// NAT64 prefix of the public IPv4 network, for hosts with only IPv6.
/// The prefix for private networks, 64:ff9b:1::/48, is outside [`GLOBAL_V6`], so it is rejected as a whole.
const NAT64: Ipv6Net = v6(0x0064, 0xff9b, 96);

fn is_public_v4(ip: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|net| net.contains(&ip))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [.., flags, isatap, high, low] = ip.segments();
    let last_v4 = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if NAT64.contains(&ip) {
        return is_public_v4(last_v4);
    }
    // An ISATAP router forwards packets to the IPv4 address at the end, whatever the prefix. The masked bit
    // distinguishes global from local interface ids.
    let tunnels_v4 = isatap == 0x5efe && flags & !0x0200 == 0;
    GLOBAL_V6.contains(&ip) && !SPECIAL_V6.iter().any(|net| net.contains(&ip)) && (!tunnels_v4 || is_public_v4(last_v4))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(url: &str) -> Option<Refusal> {
        AddressPolicy::default().check_url(url).err()
    }

    #[test]
    fn public_addresses_and_names_are_permitted() {
        for url in [
            "http://example.com/photo.jpg?size=large",
            "https://Example.COM:443/",
            "https://1.1.1.1/",
            "http://[2606:4700::1111]:8080/",
            "http://[::ffff:8.8.8.8]/",
            "http://[64:ff9b::8.8.8.8]/",
            "http://bücher.example/ü.jpg",
            "http://localhost.example.com:1024/",
            "http://127.0.0.1.example.com/",
        ] {
            assert_eq!(refusal(url), None, "{url}");
        }
    }

    #[test]
    fn no_notation_of_the_loopback_address_is_permitted() {
        for host in "127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0177.0.0.1 017700000001 0x7f.1 \
             127.0.0.1. ①②⑦.⓪.⓪.① 127。0。0。1 %31%32%37.0.0.1 0 0.0.0.0 [::1] [::] [0:0:0:0:0:0:0:1] \
             [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] \
             [2002:7f00:1::] [2001:0:1:2:3:4:80ff:fffe] [fe80::5efe:7f00:1] [2606:4700::5efe:7f00:1] \
             [2606:4700::200:5efe:7f00:1]"
            .split(' ')
        {
            let url = format!("http://{host}:7999/");
            assert!(matches!(refusal(&url), Some(Refusal::PrivateAddress(_))), "{url}: {:?}", refusal(&url));
        }
    }

    #[test]
    fn no_unusual_notation_of_a_url_reaches_the_loopback_address() {
        for url in [
            "http://127.0.0.1:7999#@example.com/",
            "http://127.0.0.1:7999\\@example.com/",
            "http:\\\\127.0.0.1:7999/",
            "http:/127.0.0.1:7999/",
            "http:127.0.0.1:7999/",
            "hTTp://127.0.0.1:7999/",
            "http://127.0.0.1:7999/%2e%2e/",
            " http://127.0.0.1:7999/",
            "http://127.0.\n0.1:7999/",
        ] {
            assert!(matches!(refusal(url), Some(Refusal::PrivateAddress(_))), "{url}: {:?}", refusal(url));
        }
    }

    #[test]
    fn private_special_and_metadata_addresses_are_rejected() {
        for host in "169.254.169.254 2852039166 0xa9fea9fe 169.254.43518 [::ffff:a9fe:a9fe] 100.100.100.200 \
             100.64.0.1 192.168.1.1 10.0.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 198.18.0.1 \
             198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255 168.63.129.16 \
             192.88.99.1 [fc00::1] [fd00:ec2::254] [fe80::1] [ff02::1] [2001:db8::1] [3fff::1] [5f00::1] \
             [100::1] [2001:20::1]"
            .split(' ')
        {
            let url = format!("http://{host}/latest/meta-data/");
            assert!(matches!(refusal(&url), Some(Refusal::PrivateAddress(_))), "{url}: {:?}", refusal(&url));
        }
    }

    #[test]
    fn an_unsupported_url_is_rejected_with_its_reason() {
        let long = format!("http://example.com/{}", "a".repeat(MAX_URL_BYTES));
        for (url, reason) in [
            ("file:///etc/passwd", Refusal::Scheme),
            ("gopher://127.0.0.1:7999/_x", Refusal::Scheme),
            ("ftp://127.0.0.1/", Refusal::Scheme),
            ("data:image/png;base64,AAAA", Refusal::Scheme),
            ("unix:/var/run/docker.sock", Refusal::Scheme),
            ("//127.0.0.1:7999/", Refusal::Malformed),
            ("photo.jpg", Refusal::Malformed),
            ("", Refusal::Malformed),
            ("http://", Refusal::Malformed),
            ("http://[fe80::1%25lo]:7999/", Refusal::Malformed),
            ("http://example.com:99999/", Refusal::Malformed),
            ("http://user:pw@example.com/", Refusal::Userinfo),
            ("http://example.com@127.0.0.1:7999/", Refusal::Userinfo),
            ("http://:pw@example.com/", Refusal::Userinfo),
            ("http://example.com:22/", Refusal::Port(22)),
            ("http://example.com:0/", Refusal::Port(0)),
            ("https://1.1.1.1:1023/", Refusal::Port(1_023)),
            (&long, Refusal::TooLong),
        ] {
            assert_eq!(refusal(url), Some(reason), "{url}");
        }
    }

    #[test]
    fn names_of_this_machine_are_rejected_unless_loopback_is_allowed() {
        let open = AddressPolicy::parse("127.0.0.0/8").expect("a valid list");
        for host in ["localhost", "LOCALHOST", "localhost.", "foo.localhost"] {
            let url = format!("http://{host}:7999/");
            assert!(matches!(refusal(&url), Some(Refusal::PrivateName(_))), "{url}");
            assert!(open.check_url(&url).is_ok(), "{url}");
        }
    }

    #[test]
    fn the_allow_list_permits_its_networks_on_any_port_and_nothing_else() {
        let policy = AddressPolicy::parse(" 127.0.0.0/8, 10.1.2.3 ,fd00::/8,").expect("a valid list");
        for url in ["http://127.9.9.9:22/", "http://10.1.2.3/", "http://[fd00::1]/", "http://[::ffff:127.0.0.1]:22/"] {
            assert!(policy.check_url(url).is_ok(), "{url}");
        }
        for url in ["http://10.1.2.4/", "http://[::1]/", "http://[fe80::1]/", "http://[::127.0.0.1]/"] {
            assert!(policy.check_url(url).is_err(), "{url}");
        }
        assert_eq!(AddressPolicy::parse(&policy.to_string()), Ok(policy));
    }

    #[test]
    fn an_invalid_entry_of_the_allow_list_is_named() {
        let message = AddressPolicy::parse("10.0.0.0/8,intranet").expect_err("no network");
        assert!(message.contains("`intranet`"), "{message}");
        assert!(AddressPolicy::parse("10.0.0.0/33").is_err());
    }

    #[test]
    fn rejection_reasons_name_the_host() {
        assert_eq!(refusal("http://10.0.0.1/").expect("private").to_string(), "10.0.0.1 is a private address");
        assert_eq!(refusal("http://localhost/").expect("private").to_string(), "localhost is a private name");
    }

    /// Generates addresses of all networks that are not public.
    fn private_v4() -> impl Strategy<Value = Ipv4Addr> {
        (0..SPECIAL_V4.len(), any::<u32>()).prop_map(|(index, chance)| {
            let net = SPECIAL_V4[index];
            Ipv4Addr::from(u32::from(net.network()) | (chance & u32::from(net.hostmask())))
        })
    }

    /// Returns all IPv6 notations of an IPv4 address.
    fn wrappings(v4: Ipv4Addr, prefix: [u16; 4]) -> Vec<Ipv6Addr> {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let [p, q, r, s] = prefix;
        vec![
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, high, u16::from(c), u16::from(d) << 8, 0, 0),
            Ipv6Addr::new(0x64, 0xff9b, 1, r, s, q, high, low),
            Ipv6Addr::new(0x2002, high, low, r, s, p, q, r),
            Ipv6Addr::new(0x2001, 0, high, low, r, s, p, q),
            Ipv6Addr::new(0x2001, 0, p, q, r, s, !high, !low),
            Ipv6Addr::new(p, q, r, s, 0, 0x5efe, high, low),
            Ipv6Addr::new(p, q, r, s, 0x0200, 0x5efe, high, low),
        ]
    }

    proptest! {
        #[test]
        fn no_private_address_is_permitted_in_any_ipv6_notation(v4 in private_v4(), prefix in any::<[u16; 4]>()) {
            let policy = AddressPolicy::default();
            prop_assert!(!policy.permits(IpAddr::V4(v4)), "{v4}");
            for wrapped in wrappings(v4, prefix) {
                prop_assert!(!policy.permits(IpAddr::V6(wrapped)), "{v4} as {wrapped}");
            }
        }

        #[test]
        fn no_text_makes_the_check_panic_and_an_accepted_url_is_plain(
            text in "\\PC{0,60}",
            host in "[0-9a-fx:.%\\[\\]]{1,20}",
        ) {
            for url in [text.clone(), format!("http://{host}/{text}")] {
                if let Ok(parsed) = AddressPolicy::default().check_url(&url) {
                    prop_assert!(matches!(parsed.scheme(), "http" | "https"));
                    prop_assert!(parsed.username().is_empty() && parsed.password().is_none());
                }
            }
        }
    }
}
