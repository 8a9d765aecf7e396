//! Builds the server's configuration from the settings.

use std::net::IpAddr;

use super::Error;
use crate::{
    auth,
    config::{Auth, Settings},
    http,
};

/// Returns the server configuration: authentication, TLS, proxies, limits and origins.
///
/// # Errors
/// If the certificate or the issuer's configuration cannot be used.
pub(super) fn config(settings: &Settings) -> Result<http::Config, Error> {
    let security = &settings.security;
    let authentication = match &security.auth {
        Auth::Unsaid | Auth::Off => http::Authentication::Off,
        Auth::Keys => http::Authentication::On(None),
        Auth::Issuer(issuer) => {
            let config = auth::Config {
                audience: issuer.audience.clone(),
                client_ids: issuer.client_ids.clone(),
                claims: issuer.claims.clone(),
                any_type: issuer.any_type,
                issuer: issuer.issuer.clone(),
                pause: auth::PAUSE,
            };
            http::Authentication::On(Some(auth::Issuer::new(config)?))
        }
    };
    let tls = security.tls.as_ref().map(|files| http::Tls::load(&files.certificate, &files.key)).transpose()?;
    let is_authenticated = !matches!(authentication, http::Authentication::Off);
    Ok(http::Config {
        hosts: hosts(settings, settings.listen.ip(), is_authenticated),
        authentication,
        public_read: security.public_read,
        quota: security.quota,
        tls,
        hsts_seconds: security.hsts_seconds,
        proxies: security.proxies.clone(),
        keep_alive: security.keep_alive,
        origins: security.origins.clone(),
        ..http::Config::default()
    })
}

/// Returns the host names that a server on `address` accepts.
pub(super) fn hosts(settings: &Settings, address: IpAddr, is_authenticated: bool) -> http::Hosts {
    http::Hosts::new(&settings.security.allowed_hosts, settings.public_url.as_deref(), address, is_authenticated)
}
