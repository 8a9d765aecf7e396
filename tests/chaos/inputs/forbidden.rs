//! Forbidden addresses, in every spelling that some URL parser accepts.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The port of the traps.
pub const PORT: u16 = 7_999;

/// One address of each non-public network.
const V4: [Ipv4Addr; 12] = [
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(127, 8, 8, 8),
    Ipv4Addr::new(10, 1, 2, 3),
    Ipv4Addr::new(172, 16, 0, 1),
    Ipv4Addr::new(192, 168, 0, 1),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::UNSPECIFIED,
];

const V6: [&str; 8] = ["::1", "::", "fd00:ec2::254", "fc00::1", "fe80::1", "2001:db8::1", "100::1", "3fff::1"];

/// Host names that the trap's name server resolves to such addresses; `flip` and `both` also have a public one.
pub const NAMES: [&str; 7] =
    ["loopback.test", "private.test", "metadata.test", "mapped.test", "nat64.test", "flip.test", "sixth.test"];

/// Returns every form once.
pub fn urls() -> Vec<String> {
    let mut hosts: Vec<String> = V4.into_iter().flat_map(spellings).collect();
    hosts.extend(V6.iter().map(|address| format!("[{address}]")));
    hosts.extend(
        ["localhost", "LOCALHOST", "localhost.", "foo.localhost", "ip6-localhost", "127.0.0.1."].map(str::to_owned),
    );
    hosts.extend(NAMES.map(str::to_owned));
    let mut all: Vec<_> = hosts.iter().map(|host| format!("http://{host}:{PORT}/")).collect();
    let odd = [
        "http://127.0.0.1:7999#@example.com/",
        "http://127.0.0.1:7999\\@example.com/",
        "http://example.com@127.0.0.1:7999/",
        "http:\\\\127.0.0.1:7999/",
        "http:/127.0.0.1:7999/",
        "http:127.0.0.1:7999/",
        "hTTp://127.0.0.1:7999/",
        "http://127.0.0.1:7999/%2e%2e/",
        " http://127.0.0.1:7999/",
        "http://127.0.\n0.1:7999/",
        "http://127.0.0.1:80/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.test/latest/meta-data/",
    ];
    all.extend(odd.map(str::to_owned));
    all.sort_unstable();
    all.dedup();
    all
}

/// Returns every spelling of an IPv4 address as a URL's host.
fn spellings(ip: Ipv4Addr) -> Vec<String> {
    let number = u32::from(ip);
    let [a, b, c, d] = ip.octets();
    let (high, low) = ((number >> 16) as u16, number as u16);
    let six = |address: Ipv6Addr| format!("[{address}]");
    let fullwidth = |text: String| -> String {
        text.chars()
            .map(|sign| sign.to_digit(10).and_then(|digit| char::from_u32(0xff10 + digit)).unwrap_or(sign))
            .collect()
    };
    vec![
        ip.to_string(),
        number.to_string(),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{}", number & 0xff_ffff),
        format!("{a}.{b}.{low}"),
        format!("{ip}."),
        fullwidth(ip.to_string()),
        ip.to_string().replace('.', "\u{3002}"),
        ip.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect(),
        six(ip.to_ipv6_mapped()),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[::{high:x}:{low:x}]"),
        six(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)),
        six(Ipv6Addr::new(0x64, 0xff9b, 1, high, u16::from(c), u16::from(d) << 8, 0, 0)),
        six(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)),
        six(Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, 0x63bf, !high, !low)),
        six(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low)),
        six(Ipv6Addr::new(0xfe80, 0, 0, 0, 0x200, 0x5efe, high, low)),
    ]
}
