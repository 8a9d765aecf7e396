//! Checks a token's claims: issuer, audience, lifetime, user and scopes.
//!
//! Issuers name the claims for user and scopes differently, so these names are settings.

use serde_json::{Map, Value};

use super::{Config, RejectionReason, Subject};
use crate::domain::{Scopes, UserId};

/// Tolerated clock difference to the issuer, in seconds.
const LEEWAY: u64 = 30;

/// Names the claims for user and scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// Claims with scopes; all that are present count. A dotted name that is no claim itself is a path into objects:
    /// `realm_access.roles`.
    pub scopes: Vec<String>,
    /// Prefix of this service's scopes; other values are ignored.
    pub scope_prefix: String,
    /// Scopes of a token without any of these claims.
    pub default_scopes: Scopes,
    /// Claim with the user's id.
    pub user: String,
}

impl Default for ClaimNames {
    /// Returns the claims of RFC 9068, and `scp`, which some issuers write instead of `scope`.
    fn default() -> Self {
        Self {
            scopes: vec!["scope".to_owned(), "scp".to_owned()],
            scope_prefix: String::new(),
            default_scopes: Scopes::default(),
            user: "sub".to_owned(),
        }
    }
}

/// Payload of a token with a valid signature.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Returns the subject and the expiry time in seconds.
    pub(super) fn check(&self, config: &Config, now: u64) -> Result<(Subject, u64), RejectionReason> {
        if self.text("iss") != Some(&config.issuer) {
            return Err(RejectionReason::Issuer);
        }
        self.check_purpose(config)?;
        let expires_at = self.moment("exp")?.ok_or(RejectionReason::Expired)?;
        if has_expired(expires_at, now) {
            return Err(RejectionReason::Expired);
        }
        for name in ["nbf", "iat"] {
            if self.moment(name)?.is_some_and(|moment| moment > now + LEEWAY) {
                return Err(RejectionReason::Early);
            }
        }
        Ok((Subject { user_id: self.user(&config.claims)?, scopes: self.scopes(&config.claims) }, expires_at))
    }

    /// Checks that the token is meant for this service: by audience, or by client if the issuer names no audience.
    fn check_purpose(&self, config: &Config) -> Result<(), RejectionReason> {
        // Amazon Cognito writes `id` into ID tokens, which are only for the client.
        if self.text("token_use").is_some_and(|purpose| purpose != "access") {
            return Err(RejectionReason::IdToken);
        }
        let audience = self.0.get("aud").map(words).unwrap_or_default();
        if !config.client_ids.is_empty() {
            let client = ["client_id", "azp", "appid", "cid"].into_iter().find_map(|name| self.text(name));
            if !client.is_some_and(|client| config.client_ids.iter().any(|known| known == client)) {
                return Err(RejectionReason::Client);
            }
        }
        let is_meant = match &config.audience {
            Some(own) => audience.contains(&own.as_str()),
            None => audience.is_empty() || config.client_ids.iter().any(|known| audience.contains(&known.as_str())),
        };
        if is_meant { Ok(()) } else { Err(RejectionReason::Audience) }
    }

    fn user(&self, names: &ClaimNames) -> Result<UserId, RejectionReason> {
        if names.user == "email" && self.0.get("email_verified").is_some_and(|value| !is_true(value)) {
            return Err(RejectionReason::Unverified);
        }
        let user = find(&self.0, &names.user).and_then(Value::as_str);
        user.and_then(|user| UserId::parse(user).ok()).ok_or(RejectionReason::Subject)
    }

    fn scopes(&self, names: &ClaimNames) -> Scopes {
        let found: Vec<_> = names.scopes.iter().filter_map(|name| find(&self.0, name)).collect();
        if found.is_empty() {
            return names.default_scopes;
        }
        let words = found.into_iter().flat_map(words).flat_map(|word| word.split(' '));
        Scopes::among(words.filter_map(|word| word.strip_prefix(&names.scope_prefix)))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn moment(&self, name: &str) -> Result<Option<u64>, RejectionReason> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().and_then(whole_seconds).map(Some).ok_or(RejectionReason::Malformed),
        }
    }
}

/// Returns whether a token with this expiry has expired.
pub(super) const fn has_expired(expires_at: u64, now: u64) -> bool {
    expires_at.saturating_add(LEEWAY) <= now
}

/// Returns the claim with this name, or the value at this dotted path.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut dots = name.match_indices('.');
    dots.find_map(|(dot, _)| find(claims.get(&name[..dot])?.as_object()?, &name[dot + 1..]))
}

/// Returns the values of a claim: a string, an array of strings, or the keys of an object (roles of some issuers).
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(word) => vec![word],
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        Value::Object(roles) => roles.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Some issuers write booleans as strings.
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or(value.as_str() == Some("true"))
}

/// RFC 7519 permits fractional times.
fn whole_seconds(moment: f64) -> Option<u64> {
    const YEAR_9999: f64 = 253_402_300_800.0;
    (0.0..YEAR_9999).contains(&moment).then_some(moment as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn config(audience: Option<&str>, claims: ClaimNames) -> Config {
        Config { audience: audience.map(str::to_owned), claims, ..Config::new("https://id.example", "unused") }
    }

    /// Returns user and scopes of a token with these claims, or the rejection reason.
    fn check(mut claims: Value, config: &Config) -> Result<(String, String), RejectionReason> {
        let whole = claims.as_object_mut().expect("an object");
        whole.entry("iss").or_insert(json!("https://id.example"));
        whole.insert("exp".to_owned(), json!(NOW + 60));
        let claims: Claims = serde_json::from_value(claims).expect("claims");
        let (subject, expires_at) = claims.check(config, NOW)?;
        assert_eq!(expires_at, NOW + 60);
        Ok((subject.user_id.to_string(), subject.scopes.to_string()))
    }

    fn may(user: &str, scopes: &str) -> Result<(String, String), RejectionReason> {
        Ok((user.to_owned(), scopes.to_owned()))
    }

    fn names(scopes: &[&str]) -> ClaimNames {
        ClaimNames { scopes: scopes.iter().map(|name| (*name).to_owned()).collect(), ..ClaimNames::default() }
    }

    #[test]
    fn keycloak() {
        let claims = json!({
            "typ": "Bearer", "azp": "importer", "aud": ["pm", "account"], "sub": "f4a3c1de-7f0f-4c0a-9a51-0d6b0e8f9a11",
            "realm_access": {"roles": ["offline_access", "products:read"]},
            "resource_access": {"pm": {"roles": ["products:write"]}, "account": {"roles": ["admin"]}},
            "scope": "openid email products:read", "preferred_username": "seller",
        });
        let sub = "f4a3c1de-7f0f-4c0a-9a51-0d6b0e8f9a11";
        assert_eq!(check(claims.clone(), &config(Some("pm"), ClaimNames::default())), may(sub, "products:read"));
        let roles = names(&["resource_access.pm.roles"]);
        assert_eq!(check(claims.clone(), &config(Some("pm"), roles)), may(sub, "products:write"));
        let named = ClaimNames { user: "preferred_username".to_owned(), ..names(&["realm_access.roles"]) };
        assert_eq!(check(claims, &config(Some("pm"), named)), may("seller", "products:read"));
    }

    #[test]
    fn auth0_own_profile_rfc_9068_and_machine_tokens() {
        let api = "https://shop.example";
        let own = json!({
            "sub": "auth0|6411d2", "aud": [api, "https://tenant.eu.auth0.com/userinfo"], "azp": "client",
            "scope": "openid products:read", "permissions": ["products:read", "products:write"],
        });
        assert_eq!(check(own.clone(), &config(Some(api), ClaimNames::default())), may("auth0|6411d2", "products:read"));
        let both = may("auth0|6411d2", "products:read products:write");
        assert_eq!(check(own, &config(Some(api), names(&["permissions"]))), both);
        let rfc =
            json!({"sub": "auth0|6411d2", "aud": api, "client_id": "client", "jti": "1", "scope": "products:write"});
        assert_eq!(check(rfc, &config(Some(api), ClaimNames::default())), may("auth0|6411d2", "products:write"));
        let machine = json!({
            "sub": "aBc@clients", "aud": api, "azp": "aBc", "gty": "client-credentials", "scope": "admin products:read",
        });
        assert_eq!(
            check(machine, &config(Some(api), ClaimNames::default())),
            may("aBc@clients", "products:read admin")
        );
    }

    #[test]
    fn okta() {
        let claims = json!({
            "ver": 1, "aud": "api://shop", "cid": "0oa1", "uid": "00u1", "sub": "seller@shop.example",
            "scp": ["products:read", "offline_access"],
        });
        let own = ClaimNames { user: "uid".to_owned(), ..ClaimNames::default() };
        assert_eq!(check(claims.clone(), &config(Some("api://shop"), own)), may("00u1", "products:read"));
        let mut one = config(Some("api://shop"), ClaimNames::default());
        one.client_ids = vec!["another".to_owned()];
        assert_eq!(check(claims, &one), Err(RejectionReason::Client));
    }

    #[test]
    fn entra_user_and_application_tokens() {
        let named = ClaimNames { user: "oid".to_owned(), ..names(&["scp", "roles"]) };
        let app = "11111111-2222-3333-4444-555555555555";
        let delegated = json!({
            "ver": "2.0", "aud": app, "azp": "spa", "oid": "person", "sub": "pairwise", "scp": "products:read profile",
        });
        assert_eq!(check(delegated, &config(Some(app), named.clone())), may("person", "products:read"));
        let application = json!({
            "ver": "2.0", "aud": app, "azp": "daemon", "idtyp": "app", "oid": "service", "sub": "service",
            "roles": ["products:write"],
        });
        assert_eq!(check(application, &config(Some(app), named)), may("service", "products:write"));
    }

    #[test]
    fn cognito_names_a_client_and_no_audience() {
        let names = ClaimNames { scope_prefix: "pm/".to_owned(), ..ClaimNames::default() };
        let config = Config { client_ids: vec!["7abc".to_owned()], ..config(None, names) };
        let access = json!({
            "token_use": "access", "client_id": "7abc", "sub": "9d1c", "scope": "pm/products:read admin aws.cognito.signin.user.admin",
        });
        assert_eq!(
            check(access.clone(), &config),
            may("9d1c", "products:read"),
            "a scope without the prefix is ignored"
        );
        let changed = |name: &str, value: Value| {
            let mut changed = access.clone();
            changed[name] = value;
            check(changed, &config)
        };
        assert_eq!(changed("client_id", json!("other")), Err(RejectionReason::Client));
        assert_eq!(changed("client_id", Value::Null), Err(RejectionReason::Client));
        assert_eq!(changed("token_use", json!("id")), Err(RejectionReason::IdToken));
        assert_eq!(changed("aud", json!("https://another.example")), Err(RejectionReason::Audience));
        assert_eq!(changed("aud", json!("7abc")), may("9d1c", "products:read"));
    }

    #[test]
    fn google_and_kubernetes_have_no_scopes() {
        let write = Scopes::parse(["products:write"]).expect("a scope");
        let by_mail = ClaimNames { user: "email".to_owned(), default_scopes: write, ..ClaimNames::default() };
        let config_of = |names| config(Some("123.apps.example"), names);
        let google = |verified: Value| {
            json!({"aud": "123.apps.example", "azp": "123.apps.example", "sub": "10769150350006150715113082367",
                "email": "seller@shop.example", "email_verified": verified})
        };
        assert_eq!(
            check(google(json!(true)), &config_of(by_mail.clone())),
            may("seller@shop.example", "products:write")
        );
        assert_eq!(check(google(json!(false)), &config_of(by_mail)), Err(RejectionReason::Unverified));
        let account = "system:serviceaccount:shop:importer";
        let kubernetes = json!({
            "aud": ["123.apps.example"], "sub": account, "kubernetes.io": {"namespace": "shop"},
        });
        let names = ClaimNames { default_scopes: write, ..ClaimNames::default() };
        assert_eq!(check(kubernetes.clone(), &config_of(names)), may(account, "products:write"));
        assert_eq!(check(kubernetes, &config_of(ClaimNames::default())), may(account, ""), "nothing by default");
    }

    #[test]
    fn zitadel_names_roles_by_keys() {
        let roles = "urn:zitadel:iam:org:project:roles";
        let claims = json!({
            "aud": ["2345", "pm@shop"], "sub": "170848145649959169", roles: {"products:read": {"1708": "shop.example"}},
        });
        assert_eq!(check(claims, &config(Some("2345"), names(&[roles]))), may("170848145649959169", "products:read"));
    }

    #[test]
    fn an_empty_scope_claim_grants_no_default_scopes() {
        let names = ClaimNames { default_scopes: Scopes::parse(["admin"]).expect("a scope"), ..ClaimNames::default() };
        let config = config(Some("a"), names);
        assert_eq!(check(json!({"aud": "a", "sub": "s", "scope": ""}), &config), may("s", ""));
        assert_eq!(check(json!({"aud": "a", "sub": "s"}), &config), may("s", "admin"));
    }

    #[test]
    fn a_claim_with_dots_in_its_name_takes_precedence() {
        let claims = json!({"a.b": 1, "a": {"b": 2, "c.d": 3}, "x": 4});
        let claims = claims.as_object().expect("an object");
        let found = |name| find(claims, name).and_then(Value::as_i64);
        assert_eq!(
            [found("a.b"), found("a.c.d"), found("x"), found("x.y"), found("a.z")],
            [Some(1), Some(3), Some(4), None, None]
        );
    }
}
