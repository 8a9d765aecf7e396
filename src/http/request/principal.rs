//! Authentication by access token or API key (RFC 6750). `authorize.rs` decides what a principal may do.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    auth::{self, Issuer, Subject},
    catalog::Catalog,
    code::ErrorCode,
    domain::{ApiKey, KeyText, Reader, Scope, UserId},
    http::{headers::forwarded::network_of, problem::Problem},
};

/// Whether and how clients authenticate.
#[derive(Clone, Debug, Default)]
pub enum Authentication {
    /// Authentication is disabled.
    #[default]
    Off,
    /// Clients authenticate by API key, or by the issuer's access token.
    On(Option<Issuer>),
}

/// The principal of a request.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Unidentified, with all permissions: authentication is off.
    AuthenticationDisabled,
    /// Unidentified: the request requires no permission. May change nothing.
    Anonymous,
    /// The subject of an access token.
    User(Arc<Subject>),
    /// A client with a user's API key.
    Key(Arc<ApiKey>),
}

impl Principal {
    /// Returns the principal's user; `None` if unidentified.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::AuthenticationDisabled | Self::Anonymous => None,
            Self::User(subject) => Some(&subject.user_id),
            Self::Key(key) => Some(&key.user_id),
        }
    }

    /// Whether the principal has this scope.
    pub fn has(&self, scope: Scope) -> bool {
        match self {
            Self::AuthenticationDisabled => true,
            Self::Anonymous => false,
            Self::User(subject) => subject.scopes.allow(scope),
            Self::Key(key) => key.scopes.allow(scope),
        }
    }

    /// Whether the principal may change resources of `user_id`: its own, or with `admin` those of all users.
    pub fn may_act_for(&self, user_id: &UserId) -> bool {
        self.has(Scope::Admin) || self.user() == Some(user_id)
    }

    /// Returns the view of products that the principal may read.
    pub fn reader(&self) -> Reader<'_> {
        match self.user() {
            _ if self.has(Scope::Admin) => Reader::Everything,
            Some(user) => Reader::User(user),
            None => Reader::Anonymous,
        }
    }

    /// Whether the principal is authenticated.
    pub const fn is_known(&self) -> bool {
        matches!(self, Self::User(_) | Self::Key(_))
    }

    /// Checks that the principal may change resources of `user_id`.
    ///
    /// # Errors
    /// 403 if it may not.
    pub fn must_act_for(&self, user_id: &UserId) -> Result<(), Problem> {
        if self.may_act_for(user_id) { Ok(()) } else { Err(not_yours()) }
    }

    /// Returns the rate limiter's key for the principal: user, API key or address.
    pub(in crate::http) fn counted_as(&self, address: IpAddr) -> String {
        match self {
            Self::AuthenticationDisabled | Self::Anonymous => by_address(address),
            Self::User(subject) => format!("user:{}", subject.user_id),
            Self::Key(key) => format!("key:{}", key.id),
        }
    }
}

/// Returns the rate limiter's key for an address; an IPv6 /64 network is one client.
pub(in crate::http) fn by_address(address: IpAddr) -> String {
    format!("address:{}", network_of(address))
}

/// Returns 403: the resource belongs to another user.
pub(super) fn not_yours() -> Problem {
    let detail = "the resource belongs to another user; changing it requires the scope `admin`";
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
}

/// Returns 403: the original belongs to another user.
pub(in crate::http) fn not_yours_to_read() -> Problem {
    let detail = "the uploaded original belongs to another user; reading it requires the scope `admin`";
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
}

impl Authentication {
    /// Whether authentication is disabled.
    pub const fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Returns the principal of a request with these headers. Awaits `permit` before a database query.
    ///
    /// # Errors
    /// 401 for missing or invalid credentials, 400 for several `Authorization` headers, 503 if they cannot be checked.
    pub async fn identify<P>(
        &self,
        headers: &HeaderMap,
        catalog: &Catalog,
        permit: impl AsyncFnOnce() -> Result<P, Problem>,
    ) -> Result<Principal, Problem> {
        let Self::On(issuer) = self else { return Ok(Principal::AuthenticationDisabled) };
        let token = shown(headers)?;
        if token.starts_with(KeyText::START) {
            let text = KeyText::parse(token);
            let remembered = text.as_ref().map_or(Some(None), |text| catalog.remembered_api_key(text));
            let key = match (remembered, &text) {
                (None, Some(text)) => {
                    let _permit = permit().await?;
                    catalog.valid_api_key(text).await?
                }
                (remembered, _) => remembered.flatten(),
            };
            return key.map(Principal::Key).ok_or_else(|| refused("the API key is unknown, expired or revoked"));
        }
        let Some(issuer) = issuer else { return Err(refused("this server accepts only API keys")) };
        match issuer.verify(token).await {
            Ok(subject) => Ok(Principal::User(subject)),
            Err(auth::Error::Refused(reason)) => Err(refused(&format!("the access token {reason}"))),
            Err(other) => Err(Problem::unavailable(ErrorCode::Unavailable, other)),
        }
    }
}

/// Returns the token or key in `Authorization`.
fn shown(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(nothing_shown()) };
    if values.next().is_some() {
        let detail = "the request has more than one `Authorization` header";
        return Err(Problem::bad_request(detail)
            .with_header(header::WWW_AUTHENTICATE, challenge("invalid_request", detail, None)));
    }
    // Another scheme counts as missing credentials. A token that is not UTF-8 is invalid.
    let bytes = value.as_bytes();
    match bytes.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            str::from_utf8(token).map(str::trim).map_err(|_| refused("the access token is malformed"))
        }
        _ => Err(nothing_shown()),
    }
}

/// Returns 401 for missing credentials; the challenge has no error code (RFC 6750, section 3.1).
fn nothing_shown() -> Problem {
    let detail = "the request requires `Authorization: Bearer` with an access token or an API key";
    Problem::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pm\""))
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, ErrorCode::InvalidToken, detail.to_owned())
        .with_header(header::WWW_AUTHENTICATE, challenge("invalid_token", detail, None))
}

/// Returns 403: the token or key lacks this scope.
pub(in crate::http) fn lacks(scope: Scope) -> Problem {
    let detail = format!("the request requires the scope `{scope}`");
    let value = challenge("insufficient_scope", &detail, Some(scope));
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::InsufficientScope, detail)
        .with_header(header::WWW_AUTHENTICATE, value)
}

fn challenge(error: &str, description: &str, scope: Option<Scope>) -> HeaderValue {
    let scope = scope.map(|scope| format!(", scope=\"{scope}\"")).unwrap_or_default();
    // A description must not contain quotation marks or backslashes; these do not.
    let text = format!("Bearer realm=\"pm\", error=\"{error}\", error_description=\"{description}\"{scope}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer realm=\"pm\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let pair = |value: &&str| (header::AUTHORIZATION, HeaderValue::try_from(*value).expect("a header"));
        values.iter().map(pair).collect()
    }

    #[test]
    fn the_scheme_is_case_insensitive_and_other_schemes_are_401() {
        assert_eq!(shown(&headers(&["Bearer abc"])).expect("a token"), "abc");
        assert_eq!(shown(&headers(&["bEARER  abc"])).expect("a token"), "abc");
        for values in [&[][..], &["Basic abc"], &["Bearer"], &["abc"]] {
            let head = shown(&headers(values)).expect_err("refused").head();
            assert_eq!(head.status(), 401);
            assert_eq!(head.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"pm\"", "{values:?}");
        }
        assert_eq!(shown(&headers(&["Bearer a", "Bearer b"])).expect_err("refused").head().status(), 400);
    }

    #[test]
    fn the_challenge_names_the_missing_scope() {
        let head = lacks(Scope::ProductsWrite).head();
        assert_eq!(head.status(), 403);
        assert_eq!(
            head.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"pm\", error=\"insufficient_scope\", error_description=\"the request requires the scope \
             `products:write`\", scope=\"products:write\""
        );
    }
}
