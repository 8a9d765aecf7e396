//! Fuzzes the download guard against two references: the standard library's definition of global addresses, and the C
//! library's parser of addresses. Both must call every accepted address public.

#![no_main]
#![feature(ip)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use pm::domain::AddressPolicy;
use pm_fuzz::write_seeds;
use url::{Host, Url};

fn seeds() -> Vec<(String, Vec<u8>)> {
    let texts = [
        "http://1.1.1.1/a.jpg",
        "http://0x7f.1:8080/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::10.0.0.1]/",
        "https://[2002:7f00:1::]:443/",
        "http://[2606:4700::5efe:7f00:1]/",
        "http://user:pw@example.com/",
        "http://localhost./",
        "http://①②⑦.⓪.⓪.①/",
        "http:\\\\017700000001\\",
    ];
    let texts = texts.iter().enumerate().map(|(number, text)| (format!("{number}.text"), text.as_bytes().to_vec()));
    let addresses =
        [Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST.to_ipv6_mapped(), "2606:4700::1111".parse().expect("one")];
    let addresses = addresses.iter().enumerate().map(|(number, ip)| (format!("{number}.ip"), ip.octets().to_vec()));
    texts.chain(addresses).collect()
}

/// Returns whether `ip` is a public host by the standard library and by the RFCs that it omits.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    ip.is_global() && !ip.is_multicast() && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_private()
}

/// Returns every IPv4 address embedded in `ip` that a gateway may send the packet to.
fn carried(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bytes = ip.octets();
    let at = |start: usize| Ipv4Addr::new(bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]);
    let segments = ip.segments();
    let mut found: Vec<_> = ip.to_ipv4_mapped().or_else(|| ip.to_ipv4()).into_iter().collect();
    if bytes.starts_with(&[0x20, 0x02]) {
        found.push(at(2));
    }
    if bytes.starts_with(&[0x00, 0x64, 0xff, 0x9b]) {
        found.push(at(12));
    }
    if segments[..2] == [0x2001, 0] {
        found.push(Ipv4Addr::from(!u32::from(at(12))));
        found.push(at(4));
    }
    if segments[4] & 0xfdff == 0 && segments[5] == 0x5efe {
        found.push(at(12));
    }
    found
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let plain = ip.is_global() && !ip.is_multicast() && !ip.is_unique_local() && !ip.is_unicast_link_local();
    plain && !ip.is_loopback() && !ip.is_unspecified() && carried(ip).into_iter().all(is_public_v4)
}

/// Returns whether the C library parses `host` as an IPv4 address, as `inet_aton` does: one to four numbers, each
/// decimal, octal or hexadecimal, the last one filling the remaining bytes.
fn is_numbers(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let parts: Vec<_> = host.split('.').collect();
    let number = |part: &str| {
        let lower = part.to_ascii_lowercase();
        if let Some(digits) = lower.strip_prefix("0x") {
            return digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        }
        !lower.is_empty() && lower.bytes().all(|digit| digit.is_ascii_digit())
    };
    parts.len() <= 4 && parts.into_iter().all(number)
}

fn check_text(text: &str) {
    let policy = AddressPolicy::default();
    let Ok(url) = policy.check_url(text) else { return };
    assert!(matches!(url.scheme(), "http" | "https"), "{url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    match url.host().expect("an accepted address has a host") {
        Host::Ipv4(ip) => assert!(is_public(ip.into()), "{url}"),
        Host::Ipv6(ip) => assert!(is_public(ip.into()), "{url}"),
        Host::Domain(name) => {
            assert!(name.parse::<IpAddr>().is_err() && !is_numbers(name), "{url}");
            let bare = name.trim_end_matches('.').to_ascii_lowercase();
            assert!(bare != "localhost" && !bare.ends_with(".localhost"), "{url}");
        }
    }
    // The downloader gets the URL, and may serialize and parse it again.
    // The length is ignored then, since non-ASCII text grows when serialized.
    let again = Url::parse(url.as_str()).expect("an accepted address is read again");
    assert_eq!((&again, policy.check(&again)), (&url, Ok(())));
}

fn check_address(ip: IpAddr) {
    let policy = AddressPolicy::default();
    if policy.permits(ip) {
        assert!(is_public(ip), "{ip} is permitted");
    }
    let text = match ip {
        IpAddr::V4(ip) => format!("http://{ip}/"),
        IpAddr::V6(ip) => format!("http://[{ip}]/"),
    };
    assert_eq!(policy.check_url(&text).is_ok(), policy.permits(ip), "{text}");
}

fuzz_target!(
    init: write_seeds(seeds()),
    |input: &[u8]| {
        if let Ok(octets) = <[u8; 4]>::try_from(input) {
            let inside = Ipv4Addr::from(octets);
            check_address(inside.into());
            check_address(inside.to_ipv6_mapped().into());
            check_address(inside.to_ipv6_compatible().into());
        }
        if let Ok(octets) = <[u8; 16]>::try_from(input) {
            check_address(Ipv6Addr::from(octets).into());
        }
        let text = String::from_utf8_lossy(input);
        check_text(&text);
        check_text(&format!("http://{text}/"));
    }
);
