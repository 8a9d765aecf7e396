//! How clients come in: the server's doors, put together from the settings.

use super::Error;
use crate::{
    auth,
    config::{Auth, Doors},
    http,
};

/// What the server does with who comes.
///
/// # Errors
/// If the certificate cannot be used, or the issuer not asked.
pub(super) fn config(doors: &Doors) -> Result<http::Config, Error> {
    let authentication = match &doors.auth {
        Auth::Unsaid | Auth::Off => http::Authentication::Off,
        Auth::Keys => http::Authentication::On(None),
        Auth::Issuer(issuer) => {
            let config = auth::Config {
                any_type: issuer.any_type,
                ..auth::Config::new(issuer.issuer.clone(), issuer.audience.clone())
            };
            http::Authentication::On(Some(auth::Issuer::new(config)?))
        }
    };
    let tls = doors.tls.as_ref().map(|files| http::Tls::load(&files.certificate, &files.key)).transpose()?;
    Ok(http::Config {
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
