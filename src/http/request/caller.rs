//! Who makes a request, by what it shows: an access token, an API key, or nothing (RFC 6750). What a caller may do with
//! which resource is decided in `access.rs`.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    auth::{self, Issuer, Subject},
    catalog::Catalog,
    code::ErrorCode,
    domain::{ApiKey, KeyText, Reader, Scope, UserId},
    http::{headers::forwarded::network_of, problem::Problem},
};

/// Whether callers have to prove who they are, and how.
#[derive(Clone, Debug, Default)]
pub enum Authentication {
    /// Nobody has to.
    #[default]
    Off,
    /// By an API key, or by an access token of the issuer, if there is one.
    On(Option<Issuer>),
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Whoever it is: authentication is off.
    Anyone,
    /// Somebody who did not have to prove anything for what is asked for, and so may change nothing.
    Nobody,
    /// The subject of an access token.
    User(Arc<Subject>),
    /// A script with a key of its user's.
    Key(Arc<ApiKey>),
}

impl Caller {
    /// The user for whom the caller speaks; `None` for anyone and nobody.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Anyone | Self::Nobody => None,
            Self::User(subject) => Some(&subject.user_id),
            Self::Key(key) => Some(&key.user_id),
        }
    }

    /// Whether the caller has this scope.
    pub fn has(&self, scope: Scope) -> bool {
        match self {
            Self::Anyone => true,
            Self::Nobody => false,
            Self::User(subject) => subject.scopes.allow(scope),
            Self::Key(key) => key.scopes.allow(scope),
        }
    }

    /// Whether the caller may change what belongs to `user_id`: its own things, or, with `admin`, everybody's.
    pub fn may_act_for(&self, user_id: &UserId) -> bool {
        self.has(Scope::Admin) || self.user() == Some(user_id)
    }

    /// What the caller may see of products.
    pub fn reader(&self) -> Reader<'_> {
        match self.user() {
            _ if self.has(Scope::Admin) => Reader::Everything,
            Some(user) => Reader::User(user),
            None => Reader::Anonymous,
        }
    }

    /// Whether the caller has proved who it is.
    pub const fn is_known(&self) -> bool {
        matches!(self, Self::User(_) | Self::Key(_))
    }

    /// Refuses unless the caller may change what belongs to `user_id`.
    ///
    /// # Errors
    /// 403.
    pub fn must_act_for(&self, user_id: &UserId) -> Result<(), Problem> {
        if self.may_act_for(user_id) { Ok(()) } else { Err(not_yours()) }
    }

    /// What the caller's requests are counted under: itself, or where it comes from.
    pub(in crate::http) fn counted_as(&self, address: IpAddr) -> String {
        match self {
            Self::Anyone | Self::Nobody => by_address(address),
            Self::User(subject) => format!("user:{}", subject.user_id),
            Self::Key(key) => format!("key:{}", key.id),
        }
    }
}

/// What requests from this address are counted under; a network of IPv6 is one client.
pub(in crate::http) fn by_address(address: IpAddr) -> String {
    format!("address:{}", network_of(address))
}

/// 403: the resource is another user's.
pub(super) fn not_yours() -> Problem {
    let detail = "what belongs to another user is changed by that user, or with the scope `admin`";
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
}

/// 403: the original was uploaded by another user.
pub(in crate::http) fn not_yours_to_read() -> Problem {
    let detail = "an uploaded original is read by the user of its product, or with the scope `admin`";
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
}

impl Authentication {
    /// Whether nobody has to prove anything.
    pub const fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Who makes the request with these headers. `permit` is asked for before the database is.
    ///
    /// # Errors
    /// 401 without or with a wrong token or key; 400 if there is more than one; 503 if it cannot be checked.
    pub async fn identify<P>(
        &self,
        headers: &HeaderMap,
        catalog: &Catalog,
        permit: impl AsyncFnOnce() -> Result<P, Problem>,
    ) -> Result<Caller, Problem> {
        let Self::On(issuer) = self else { return Ok(Caller::Anyone) };
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
            return key.map(Caller::Key).ok_or_else(|| refused("the API key is unknown, expired or taken back"));
        }
        let Some(issuer) = issuer else { return Err(refused("only API keys are taken here")) };
        match issuer.verify(token).await {
            Ok(subject) => Ok(Caller::User(subject)),
            Err(auth::Error::Refused(flaw)) => Err(refused(&format!("the access token {flaw}"))),
            Err(other) => Err(Problem::unavailable(ErrorCode::Unavailable, other)),
        }
    }
}

/// The token or key of a request.
fn shown(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Err(nothing_shown()) };
    if values.next().is_some() {
        let detail = "there is more than one `Authorization`";
        return Err(Problem::bad_request(detail)
            .with_header(header::WWW_AUTHENTICATE, challenge("invalid_request", detail, None)));
    }
    // Another scheme is as good as none; what is no ASCII is a token that nobody issued.
    let bytes = value.as_bytes();
    match bytes.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            str::from_utf8(token).map(str::trim).map_err(|_| refused("the access token cannot be read"))
        }
        _ => Err(nothing_shown()),
    }
}

/// 401 with the challenge that names no error, for who did not know that something has to be shown (RFC 6750, section 3.1).
fn nothing_shown() -> Problem {
    let detail = "this needs `Authorization: Bearer` with an access token or an API key";
    Problem::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pm\""))
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, ErrorCode::InvalidToken, detail.to_owned())
        .with_header(header::WWW_AUTHENTICATE, challenge("invalid_token", detail, None))
}

/// 403: the caller is known and its token or key has not this scope.
pub(in crate::http) fn lacks(scope: Scope) -> Problem {
    let detail = format!("this needs the scope `{scope}`");
    let value = challenge("insufficient_scope", &detail, Some(scope));
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::InsufficientScope, detail)
        .with_header(header::WWW_AUTHENTICATE, value)
}

fn challenge(error: &str, description: &str, scope: Option<Scope>) -> HeaderValue {
    let scope = scope.map(|scope| format!(", scope=\"{scope}\"")).unwrap_or_default();
    // A description must not hold quotation marks or backslashes; ours have none.
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
    fn the_scheme_is_of_any_case_and_another_one_is_as_good_as_none() {
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
    fn a_missing_scope_is_named_in_the_challenge() {
        let head = lacks(Scope::ProductsWrite).head();
        assert_eq!(head.status(), 403);
        assert_eq!(
            head.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"pm\", error=\"insufficient_scope\", error_description=\"this needs the scope \
             `products:write`\", scope=\"products:write\""
        );
    }
}
