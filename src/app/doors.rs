//! How clients come in: the server's doors, put together from the settings.

use std::net::IpAddr;

use super::Error;
use crate::{
    auth,
    config::{Auth, Settings},
    http,
};

/// What the server does with who comes.
///
/// # Errors
/// If the certificate cannot be used, or the issuer not asked.
pub(super) fn config(settings: &Settings) -> Result<http::Config, Error> {
    let doors = &settings.doors;
    let authentication = match &doors.auth {
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
    let tls = doors.tls.as_ref().map(|files| http::Tls::load(&files.certificate, &files.key)).transpose()?;
    let is_authenticated = !matches!(authentication, http::Authentication::Off);
    Ok(http::Config {
        hosts: hosts(settings, settings.listen.ip(), is_authenticated),
        authentication,
        public_read: doors.public_read,
        quota: doors.quota,
        tls,
        hsts_seconds: doors.hsts_seconds,
        proxies: doors.proxies.clone(),
        keep_alive: doors.keep_alive,
        origins: doors.origins.clone(),
        ..http::Config::default()
    })
}

/// The hosts that a server on `address` answers for.
pub(super) fn hosts(settings: &Settings, address: IpAddr, is_authenticated: bool) -> http::Hosts {
    http::Hosts::new(&settings.doors.allowed_hosts, settings.public_url.as_deref(), address, is_authenticated)
}
