//! Host validation, against DNS rebinding, and rejection of changes from foreign origins.
//!
//! With DNS rebinding, a malicious site makes its own name resolve to this server. The browser then treats the server
//! as part of that site, so the site's pages can read and change data. Only the host in the request reveals this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use url::Url;

use super::cors::Origins;
use crate::{
    code::ErrorCode,
    http::{problem::Problem, request::method::RequestMethod},
};

/// The hosts in the setting `PM_ALLOWED_HOSTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHosts {
    /// `*`: every host.
    Any,
    /// Names and addresses, in lower case.
    Listed(Vec<String>),
}

/// The hosts that the server accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
    others: Others,
    /// The origin of pages under the public URL.
    own_origin: Option<String>,
}

/// Accepted hosts other than the listed ones and this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Others {
    /// All hosts.
    #[default]
    Any,
    /// Addresses, and names outside the public DNS.
    Private,
    /// None.
    None,
}

/// Domains outside the public DNS.
const PRIVATE_DOMAINS: [&str; 4] = [".local", ".internal", ".home.arpa", ".localhost"];
const SEC_FETCH_SITE: &str = "sec-fetch-site";

impl Default for AllowedHosts {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl AllowedHosts {
    /// Parses `*`, or names and addresses separated by commas.
    ///
    /// # Errors
    /// A message that names the first invalid entry.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries: Vec<_> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries.contains(&"*") {
            return Ok(Self::Any);
        }
        let read = |entry: &&str| {
            let bare = entry.parse::<IpAddr>().map_or_else(|_| (*entry).to_owned(), bracketed);
            let host = url::Host::parse(&bare).map(|host| host.to_string()).ok();
            host.ok_or_else(|| format!("has `{entry}`, which is neither a host name nor an address"))
        };
        entries.iter().map(read).collect::<Result<_, _>>().map(Self::Listed)
    }
}

/// Formats the value as [`parse`](Self::parse) reads it.
impl std::fmt::Display for AllowedHosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Listed(list) => f.write_str(&list.join(",")),
        }
    }
}

impl Hosts {
    /// Returns the accepted hosts of a server that listens on `address`.
    ///
    /// With authentication, the server accepts any host unless the operator lists some: a page of another site has no
    /// token.
    pub fn new(allowed: &AllowedHosts, public_url: Option<&str>, address: IpAddr, is_authenticated: bool) -> Self {
        let public = public_url.and_then(|url| Url::parse(url).ok());
        let (mut names, others) = match allowed {
            AllowedHosts::Any => (Vec::new(), Others::Any),
            AllowedHosts::Listed(list) if address.to_canonical().is_loopback() => (list.clone(), Others::None),
            AllowedHosts::Listed(list) if list.is_empty() && is_authenticated => (Vec::new(), Others::Any),
            AllowedHosts::Listed(list) => (list.clone(), Others::Private),
        };
        names.push(bracketed(address));
        names.extend(public.as_ref().and_then(Url::host_str).map(str::to_owned));
        Self { names, others, own_origin: public.map(|url| url.origin().ascii_serialization()) }
    }

    /// Checks the host of `request`, and the origin of a change.
    ///
    /// # Errors
    /// 400 unless the request has exactly one valid host, 421 for a host that the server does not accept, 403 for a
    /// change from a foreign origin.
    pub fn check<B>(&self, request: &Request<B>, method: RequestMethod, origins: &Origins) -> Result<(), Problem> {
        let Some(authority) = authority(request)? else { return Ok(()) };
        let host = host_of(authority).ok_or_else(malformed)?;
        if !self.answers_for(host) {
            let shown: String = host.chars().take(100).collect();
            tracing::info!(
                host = shown,
                "refused a request for host `{shown}`; PM_ALLOWED_HOSTS and PM_PUBLIC_URL add accepted hosts"
            );
            let detail = format!("this server does not answer for host `{shown}`");
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, ErrorCode::Misdirected, detail));
        }
        let changes = !matches!(method, RequestMethod::Get | RequestMethod::Head | RequestMethod::Options);
        if changes && self.is_asked_by_a_foreign_page(request.headers(), authority, origins) {
            tracing::info!("refused a change from a page of another origin; PM_CORS_ORIGINS adds allowed origins");
            let detail = "this server does not accept changes from pages of this origin";
            return Err(Problem::new(StatusCode::FORBIDDEN, ErrorCode::ForeignOrigin, detail));
        }
        Ok(())
    }

    fn answers_for(&self, host: &str) -> bool {
        if self.others == Others::Any {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if self.names.iter().any(|name| name.eq_ignore_ascii_case(host)) || is_this_machine(host) {
            return true;
        }
        self.others == Others::Private && (address_of(host).is_some() || is_private_name(host))
    }

    /// Whether a page of a foreign origin made the request. Browsers set the checked headers; pages cannot forge them.
    fn is_asked_by_a_foreign_page(&self, headers: &HeaderMap, authority: &str, origins: &Origins) -> bool {
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        if matches!(site, Some(b"same-origin" | b"none")) {
            return false;
        }
        match headers.get(header::ORIGIN) {
            Some(origin) => !origins.allow(origin) && !self.is_own(origin, authority),
            None => site == Some(&b"cross-site"[..]) && *origins != Origins::Any,
        }
    }

    /// Whether `origin` is the request's own host, over http or https: a proxy may have terminated TLS.
    fn is_own(&self, origin: &HeaderValue, authority: &str) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let own_host = [("http://", ":80"), ("https://", ":443")].into_iter().any(|(scheme, port)| {
            let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
            origin.strip_prefix(scheme).is_some_and(|host| bare(host) == bare(authority))
        });
        own_host || self.own_origin.as_deref() == Some(origin)
    }
}

/// Returns the host and port of a request (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
///
/// Returns `None` for an HTTP/1.0 request without a host.
fn authority<B>(request: &Request<B>) -> Result<Option<&str>, Problem> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Problem::bad_request("the request has several `Host` headers"));
    }
    let header = first.map(|value| value.to_str().map_err(|_| malformed())).transpose()?;
    // A host in the target overrides the header, but the header must be valid as well.
    if header.is_some_and(|header| host_of(header).is_none()) {
        return Err(malformed());
    }
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    if request.version() >= Version::HTTP_2
        && let (Some(header), Some(target)) = (header, target)
        && !header.eq_ignore_ascii_case(target)
    {
        return Err(Problem::bad_request("`Host` and `:authority` differ"));
    }
    match (target.or(header), request.version()) {
        (None, Version::HTTP_09 | Version::HTTP_10) => Ok(None),
        (_, Version::HTTP_11) if header.is_none() => Err(Problem::bad_request("the request has no `Host` header")),
        (None, _) => Err(Problem::bad_request("the request has no host")),
        (found, _) => Ok(found),
    }
}

fn malformed() -> Problem {
    Problem::bad_request("`Host` is malformed; it must be a host name or address, with an optional port")
}

/// Returns the host of `host[:port]`; `None` if malformed (RFC 3986, section 3.2.2).
fn host_of(authority: &str) -> Option<&str> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    let is_port =
        |port: &str| port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let has_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    let is_name = |host: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
        !host.is_empty() && host.bytes().all(letter)
    };
    let is_host = if host.starts_with('[') { address_of(host).is_some() } else { is_name(host) };
    (has_port && is_host).then_some(host)
}

fn address_of(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn is_this_machine(host: &str) -> bool {
    match address_of(host) {
        Some(address) => address.to_canonical().is_loopback(),
        None => host.eq_ignore_ascii_case("localhost") || ends_with(host, ".localhost"),
    }
}

/// Whether a name is outside the public DNS: it has a single label, or is in a private domain.
fn is_private_name(host: &str) -> bool {
    !host.contains('.') || PRIVATE_DOMAINS.into_iter().any(|domain| ends_with(host, domain))
}

fn ends_with(host: &str, domain: &str) -> bool {
    let start = host.len().checked_sub(domain.len());
    start.and_then(|start| host.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(allowed: &str, public_url: Option<&str>, address: &str, is_authenticated: bool) -> Hosts {
        let allowed = AllowedHosts::parse(allowed).expect("hosts");
        Hosts::new(&allowed, public_url, address.parse().expect("an address"), is_authenticated)
    }

    fn answered(hosts: &Hosts, names: &[&str]) -> Vec<bool> {
        names.iter().map(|name| hosts.answers_for(host_of(name).expect("well formed"))).collect()
    }

    #[test]
    fn a_server_on_loopback_accepts_this_machine_and_listed_hosts() {
        let own =
            ["localhost", "LOCALHOST:8080", "localhost.", "app.localhost", "127.0.0.1:80", "127.9.9.9", "[::1]:8080"];
        let foreign = ["evil.example", "localhost.evil.example", "pm", "10.0.0.1", "[2001:db8::1]", "printer.local"];
        for is_authenticated in [false, true] {
            let hosts = hosts("", None, "127.0.0.1", is_authenticated);
            assert!(answered(&hosts, &own).iter().all(|answered| *answered));
            assert!(answered(&hosts, &foreign).iter().all(|answered| !answered));
        }
        let named = hosts("Shop.example, 10.0.0.1, ::2", Some("https://www.shop.example:444/pm"), "127.0.0.1", false);
        assert!(answered(&named, &["shop.example", "10.0.0.1:8080", "[::2]", "www.shop.example"]).iter().all(|is| *is));
        assert_eq!(answered(&named, &["shop.example.evil.example", "evil.example"]), [false, false]);
        assert_eq!(answered(&hosts("*", None, "127.0.0.1", false), &["evil.example"]), [true]);
    }

    #[test]
    fn a_server_on_another_address_accepts_private_names() {
        let private =
            ["pm", "pm:8080", "10.1.2.3", "[2001:db8::1]", "pm.local", "pm.shop.svc.cluster.local", "a.internal"];
        let open = hosts("", None, "0.0.0.0", false);
        assert!(answered(&open, &private).iter().all(|answered| *answered));
        assert_eq!(answered(&open, &["evil.example", "local.example"]), [false, false]);
        assert_eq!(answered(&hosts("", Some("http://shop.example"), "0.0.0.0", false), &["shop.example"]), [true]);
        // With authentication, a page of another site has no token, so any host is accepted.
        assert_eq!(answered(&hosts("", None, "0.0.0.0", true), &["evil.example"]), [true]);
        assert_eq!(
            answered(&hosts("shop.example", None, "0.0.0.0", true), &["evil.example", "10.0.0.1"]),
            [false, true]
        );
    }

    #[test]
    fn a_malformed_host_is_refused() {
        for (text, host) in
            [("a", "a"), ("a:80", "a"), ("a:", "a"), ("[::1]", "[::1]"), ("[::1]:1", "[::1]"), ("a%20b", "a%20b")]
        {
            assert_eq!(host_of(text), Some(host), "{text}");
        }
        for text in
            ["", ":80", "a b", "a:b", "a:123456", "a@b", "a/b", "[::1", "[a]", "[::1]x", "::1", "a,b:x", "a\"", "ä"]
        {
            assert_eq!(host_of(text), None, "{text}");
        }
        assert_eq!((host_of("a:65535"), host_of("[::1]:65535")), (Some("a"), Some("[::1]")));
        for text in ["a:65536", "127.0.0.1:99999", "[::1]:99999", "a:+1", "a:18446744073709551617"] {
            assert_eq!(host_of(text), None, "{text}");
        }
        assert!(AllowedHosts::parse("http://a.example").is_err() && AllowedHosts::parse("a.example:80").is_err());
    }

    fn status(request: http::request::Builder) -> u16 {
        let request = request.body(()).expect("a request");
        let method = RequestMethod::of(request.method());
        let hosts = hosts("", Some("https://shop.example"), "127.0.0.1", false);
        let origins = Origins::parse("https://page.example").expect("origins");
        hosts.check(&request, method, &origins).map_or_else(|problem| problem.head().status().as_u16(), |()| 200)
    }

    #[test]
    fn a_request_must_have_exactly_one_host() {
        let get = || Request::get("/products");
        assert_eq!(status(get().header("host", "localhost:1")), 200);
        assert_eq!(status(get()), 400);
        assert_eq!(status(get().version(Version::HTTP_10)), 200);
        assert_eq!(status(get().header("host", "localhost").header("host", "localhost")), 400);
        assert_eq!(status(get().header("host", "a b")), 400);
        assert_eq!(status(get().header("host", "evil.example")), 421);
        let absolute = |url| Request::get(url).header("host", "localhost");
        assert_eq!(status(absolute("http://evil.example/products")), 421, "the target overrides the header");
        assert_eq!(status(absolute("http://localhost/products")), 200);
        assert_eq!(status(Request::get("http://localhost/products")), 400, "HTTP/1.1 always requires the header");
        let two = |url| Request::get(url).version(Version::HTTP_2);
        assert_eq!(status(two("https://localhost/products")), 200);
        assert_eq!(status(two("https://localhost/products").header("host", "LOCALHOST")), 200);
        assert_eq!(status(two("https://localhost/products").header("host", "shop.example")), 400);
        assert_eq!(status(two("/products")), 400);
    }

    #[test]
    fn a_change_from_a_foreign_origin_is_403() {
        let post = |name: &'static str, value: &'static str| {
            Request::post("/products").header("host", "localhost:8080").header(name, value)
        };
        for origin in ["https://evil.example", "null", "http://localhost:9090", "http://localhost:80", "garbage"] {
            assert_eq!(status(post("origin", origin)), 403, "{origin}");
        }
        for origin in
            ["http://localhost:8080", "https://LOCALHOST:8080", "https://shop.example", "https://page.example"]
        {
            assert_eq!(status(post("origin", origin)), 200, "{origin}");
        }
        assert_eq!(status(post("sec-fetch-site", "cross-site")), 403);
        for site in ["same-origin", "same-site", "none"] {
            assert_eq!(status(post("sec-fetch-site", site)), 200, "{site}");
        }
        assert_eq!(status(post("origin", "https://behind.example").header("sec-fetch-site", "same-origin")), 200);
        let get = Request::get("/products").header("host", "localhost").header("origin", "https://evil.example");
        assert_eq!(status(get), 200, "CORS decides which responses a page may read");
    }
}
