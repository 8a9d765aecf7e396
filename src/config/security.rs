//! The security settings: authentication, TLS, proxies, rate limit, origins and hosts.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use url::{Host, Url};

use super::{resolve::Resolver, values};
use crate::{
    auth::ClaimNames,
    domain::{Quota, Scopes},
    http::{AllowedHosts, ForwardedHeader, Origins, Proxies, PublicRead},
};

/// The authentication mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// No authentication, by default.
    #[default]
    Unsaid,
    /// No authentication, explicitly configured.
    Off,
    /// API keys only.
    Keys,
    /// API keys, or access tokens of this issuer.
    Issuer(Issuer),
}

/// The trusted issuer of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The issuer identifier.
    pub issuer: String,
    /// The required audience of tokens.
    pub audience: Option<String>,
    /// The permitted clients; empty permits all.
    pub client_ids: Vec<String>,
    /// The claims that contain scopes and user id.
    pub claims: ClaimNames,
    /// Whether tokens without the type `at+jwt` are accepted.
    pub any_type: bool,
}

/// Paths of the certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain in PEM.
    pub certificate: PathBuf,
    /// The private key of the first certificate in PEM.
    pub key: PathBuf,
}

/// Authentication, TLS, proxies, rate limit and origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecuritySettings {
    /// The authentication mode.
    pub auth: Auth,
    /// The resources that anonymous clients may read.
    pub public_read: PublicRead,
    /// The certificate and key, if the server uses TLS.
    pub tls: Option<TlsFiles>,
    /// `max-age` of `Strict-Transport-Security` in seconds.
    pub hsts_seconds: Option<u64>,
    /// Whether the operator permits credentials over plain HTTP.
    pub plain_http: bool,
    /// The trusted proxies and their forwarding header.
    pub proxies: Proxies,
    /// Idle time limit of a connection between two requests.
    pub keep_alive: Duration,
    /// The rate limit per client.
    pub quota: Option<Quota>,
    /// The origins that CORS permits.
    pub origins: Origins,
    /// Additional permitted hosts, besides this machine's and the public URL's.
    pub allowed_hosts: AllowedHosts,
}

#[derive(Clone, Copy)]
enum Said {
    Off,
    Keys,
}

/// Reads the security settings; returns `None` if one is invalid.
pub(super) fn resolve(resolver: &mut Resolver<'_>) -> Option<SecuritySettings> {
    let auth = resolve_auth(resolver);
    let public_read = resolver.optional("public_read", PublicRead::parse);
    let tls = resolve_tls(resolver);
    let hsts = resolver.optional("hsts", |text| values::parse_duration(text).map(|span| span.as_secs()));
    let plain_http =
        resolver.optional("plain_http", |text| if text == "allow" { Ok(()) } else { Err("is unknown".into()) });
    let proxies = resolver.optional("trusted_proxies", Proxies::parse);
    let header = resolver.take("forwarded_header", ForwardedHeader::parse);
    let keep_alive = resolver
        .take("keepalive", |text| values::duration_within(text, Duration::from_secs(1), Duration::from_secs(3_600)));
    let quota = resolver.optional("rate_limit", Quota::parse);
    let origins = resolver.optional("cors_origins", Origins::parse);
    let allowed_hosts = resolver.optional("allowed_hosts", AllowedHosts::parse);
    Some(SecuritySettings {
        auth: auth?,
        public_read: public_read?.unwrap_or_default(),
        tls: tls?,
        hsts_seconds: hsts?,
        plain_http: plain_http?.is_some(),
        proxies: proxies?.unwrap_or_default().writing(header?),
        keep_alive: keep_alive?,
        quota: quota?,
        origins: origins?.unwrap_or_default(),
        allowed_hosts: allowed_hosts?.unwrap_or_default(),
    })
}

fn resolve_auth(resolver: &mut Resolver<'_>) -> Option<Auth> {
    let said = resolver.optional("auth", |text| match text {
        "off" => Ok(Said::Off),
        "keys" => Ok(Said::Keys),
        _ => Err("is unknown".into()),
    });
    let issuer = resolver.optional("auth_issuer", issuer);
    let audience = resolver.optional("auth_audience", |text| Ok(text.to_owned()));
    let any_type = resolver.take("auth_token_type", |text| match text {
        "at+jwt" => Ok(false),
        "any" => Ok(true),
        _ => Err("is unknown".into()),
    });
    let client_ids = resolver.optional("auth_client_id", list);
    let claims = resolve_claims(resolver);
    let client_ids = client_ids?.unwrap_or_default();
    match (said?, issuer?, audience?) {
        (None, None, None) => Some(Auth::Unsaid),
        (Some(Said::Off), None, None) => Some(Auth::Off),
        (Some(Said::Keys), None, None) => Some(Auth::Keys),
        (Some(Said::Off), _, _) => {
            resolver.add_conflict("auth", "conflicts with auth_issuer and auth_audience");
            None
        }
        (_, Some(_), None) if client_ids.is_empty() => {
            resolver.add_conflict("auth_issuer", "requires auth_audience or auth_client_id as well");
            None
        }
        (_, Some(issuer), audience) => {
            Some(Auth::Issuer(Issuer { issuer, audience, client_ids, claims: claims?, any_type: any_type? }))
        }
        (_, None, Some(_)) => {
            resolver.add_conflict("auth_audience", "requires auth_issuer as well");
            None
        }
    }
}

fn resolve_claims(resolver: &mut Resolver<'_>) -> Option<ClaimNames> {
    let scopes = resolver.take("auth_scope_claim", list);
    let prefix = resolver.optional("auth_scope_prefix", |text| Ok(text.to_owned()));
    let default_scopes = resolver.optional("auth_default_scopes", |text| Scopes::parse(text.split(',').map(str::trim)));
    let user = resolver.take("auth_user_claim", |text| Ok(text.to_owned()));
    Some(ClaimNames {
        scopes: scopes?,
        scope_prefix: prefix?.unwrap_or_default(),
        default_scopes: default_scopes?.unwrap_or_default(),
        user: user?,
    })
}

/// Splits a comma-separated list.
fn list(text: &str) -> Result<Vec<String>, String> {
    let items: Vec<_> = text.split(',').map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) { Err("has an empty item".into()) } else { Ok(items) }
}

fn resolve_tls(resolver: &mut Resolver<'_>) -> Option<Option<TlsFiles>> {
    let certificate = resolver.optional("tls_cert", |text| Ok(PathBuf::from(text)));
    let key = resolver.optional("tls_key", |text| Ok(PathBuf::from(text)));
    match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some(Some(TlsFiles { certificate, key })),
        (None, None) => Some(None),
        (Some(_), None) => {
            resolver.add_conflict("tls_cert", "requires tls_key as well");
            None
        }
        (None, Some(_)) => {
            resolver.add_conflict("tls_key", "requires tls_cert as well");
            None
        }
    }
}

/// Validates an issuer identifier and returns it unchanged.
///
/// Requires https except on this machine, because an attacker on the network could replace the issuer's keys.
fn issuer(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a valid URL: {error}"))?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).to_canonical().is_loopback(),
        None => false,
    };
    match url.scheme() {
        _ if url.query().is_some() || url.fragment().is_some() => Err("must not have a query or a fragment".into()),
        "https" => Ok(text.to_owned()),
        "http" if is_local => Ok(text.to_owned()),
        _ => Err("is not an https URL; only an issuer on this machine may use http".into()),
    }
}

impl SecuritySettings {
    /// Returns the name and value of each setting.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        let path = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
        let issuer = match &self.auth {
            Auth::Issuer(issuer) => Some(issuer),
            _ => None,
        };
        let auth = match &self.auth {
            Auth::Off => "off",
            Auth::Keys => "keys",
            Auth::Unsaid | Auth::Issuer(_) => "",
        };
        let claims = issuer.map(|issuer| issuer.claims.clone()).unwrap_or_default();
        let token_type = if issuer.is_some_and(|issuer| issuer.any_type) { "any" } else { "at+jwt" };
        vec![
            ("auth", auth.to_owned()),
            ("auth_issuer", issuer.map(|issuer| issuer.issuer.clone()).unwrap_or_default()),
            ("auth_audience", issuer.and_then(|issuer| issuer.audience.clone()).unwrap_or_default()),
            ("auth_token_type", token_type.to_owned()),
            ("auth_client_id", issuer.map(|issuer| issuer.client_ids.join(",")).unwrap_or_default()),
            ("auth_scope_claim", claims.scopes.join(",")),
            ("auth_scope_prefix", claims.scope_prefix.clone()),
            ("auth_default_scopes", claims.default_scopes.to_string().replace(' ', ",")),
            ("auth_user_claim", claims.user.clone()),
            ("public_read", self.public_read.to_string()),
            ("tls_cert", path(self.tls.as_ref().map(|tls| &tls.certificate))),
            ("tls_key", path(self.tls.as_ref().map(|tls| &tls.key))),
            ("plain_http", if self.plain_http { "allow".into() } else { String::new() }),
            ("trusted_proxies", self.proxies.to_string()),
            ("forwarded_header", self.proxies.header().as_str().to_owned()),
            ("rate_limit", self.quota.map(|quota| quota.to_string()).unwrap_or_default()),
            ("cors_origins", self.origins.to_string()),
            ("allowed_hosts", self.allowed_hosts.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_uses_https_or_is_on_this_machine() {
        for text in ["https://id.example/realms/shop", "http://127.0.0.1:8081", "http://localhost/a", "http://[::1]:1/"]
        {
            assert_eq!(issuer(text), Ok(text.to_owned()));
        }
        for text in ["http://id.example", "id.example", "https://id.example/?a", "ftp://127.0.0.1", "http://10.0.0.1"] {
            assert!(issuer(text).is_err(), "{text} was accepted");
        }
    }
}
