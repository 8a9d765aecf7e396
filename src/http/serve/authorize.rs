//! Authorization middleware: authenticates every request, applies the rate limit and checks permissions.
//!
//! No request reaches a handler without it, so handlers need not check the owner of a product.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderValue, header};

use super::rate_limit::{Allowance, RateLimit};
use crate::{
    catalog::Catalog,
    domain::{Scope, UserId},
    http::{
        admission::permits::{self, Permit, Permits},
        endpoint::{Kind, Permission, PublicRead, Route},
        problem::Problem,
        request::{
            extract,
            method::RequestMethod,
            path,
            principal::{self, Authentication, Principal},
        },
        resources::resource_metadata,
    },
};

/// The parts of a request that authorization reads.
#[derive(Clone, Copy)]
pub struct AccessRequest<'a> {
    /// The route of the path, if any.
    pub route: Option<Route>,
    /// The method.
    pub method: RequestMethod,
    /// The path, not decoded.
    pub path: &'a str,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The client's address.
    pub address: IpAddr,
    /// The client's network and connection.
    pub from: permits::From,
}

/// Maximum number of concurrent authorization queries to the database.
///
/// A client can cause such a query with an invented key, so the permits for it are fair between clients.
const MAX_LOOKUPS: usize = 4;
/// Maximum wait for such a query.
const LOOKUP_WAIT: Duration = Duration::from_secs(1);

/// Authorizes requests; shared by all connections.
pub struct Authorizer {
    authentication: Authentication,
    rate_limit: Option<RateLimit>,
    public_read: PublicRead,
    lookups: Permits,
}

impl Authorizer {
    /// Creates the middleware.
    pub fn new(authentication: Authentication, rate_limit: Option<RateLimit>, public_read: PublicRead) -> Self {
        Self { authentication, rate_limit, public_read, lookups: Permits::new(MAX_LOOKUPS, LOOKUP_WAIT) }
    }

    /// Whether every request is allowed: there is no authentication and no rate limit.
    pub const fn is_open(&self) -> bool {
        self.authentication.is_off() && self.rate_limit.is_none()
    }

    /// Returns the principal of an allowed request. Sets `allowance` to the rest of the client's quota in any case.
    ///
    /// # Errors
    /// 401, 403 or 429; 503 if the credentials cannot be checked.
    pub async fn pass(
        &self,
        visit: AccessRequest<'_>,
        catalog: &Catalog,
        allowance: &mut Option<Allowance>,
    ) -> Result<Principal, Problem> {
        let outcome = self.judge(visit, catalog, allowance).await;
        match (&self.authentication, catalog.links().public_url()) {
            (Authentication::On(Some(_)), Some(public)) => {
                let address = || format!("{public}{}", resource_metadata::PATH);
                outcome.map_err(|problem| problem.with_metadata_at(&address()))
            }
            _ => outcome,
        }
    }

    /// Adds the rest of the client's quota to a response, and `Vary: Authorization` if it depends on the principal.
    pub fn add_headers(
        &self,
        (method, route): (RequestMethod, Option<Route>),
        allowance: Option<Allowance>,
        answer: &mut HeaderMap,
    ) {
        if let Some(allowance) = allowance {
            allowance.add_headers(answer);
        }
        let endpoint = route.and_then(|route| route.endpoint(method));
        let need = endpoint.map_or(Permission::Nothing, |endpoint| endpoint.permission);
        let is_public = match need {
            Permission::Nothing => true,
            Permission::ReadImages => self.public_read.images,
            // Publicly readable products have another body for their owner.
            _ => false,
        };
        if !self.authentication.is_off() && !is_public {
            answer.append(header::VARY, HeaderValue::from_static("Authorization"));
        }
    }

    async fn judge(
        &self,
        visit: AccessRequest<'_>,
        catalog: &Catalog,
        allowance: &mut Option<Allowance>,
    ) -> Result<Principal, Problem> {
        let Some(need) = self.need(visit) else { return Ok(Principal::Anonymous) };
        let identified = self.identify(need, visit, catalog).await;
        if let Some(limit) = &self.rate_limit
            && !visit.route.is_some_and(|route| route.is(Kind::Status))
        {
            // A request with invalid credentials is counted by address, like one without credentials.
            let client = match &identified {
                Ok(principal) => principal.counted_as(visit.address),
                Err(_) => principal::by_address(visit.address),
            };
            let left = limit.spend(&client).await;
            let outcome = left.outcome();
            *allowance = Some(left);
            outcome?;
        }
        let principal = identified?;
        // A token without the scope must not give less access than no token.
        if !(need == Permission::ReadProducts && self.public_read.products) {
            self.check(need, &principal, visit, catalog).await?;
        }
        Ok(principal)
    }

    /// Returns the required permission; `None` for `OPTIONS`.
    fn need(&self, visit: AccessRequest<'_>) -> Option<Permission> {
        if visit.method == RequestMethod::Options {
            return None;
        }
        let endpoint = visit.route.and_then(|route| route.endpoint(visit.method));
        // 404 and 405 require no permission.
        let need = endpoint.map_or(Permission::Nothing, |endpoint| endpoint.permission);
        let shows_nothing = !visit.headers.contains_key(header::AUTHORIZATION);
        Some(match need {
            Permission::ReadImages if self.public_read.images => Permission::Nothing,
            Permission::ReadProducts if self.public_read.products && shows_nothing => Permission::Nothing,
            need => need,
        })
    }

    async fn identify(
        &self,
        need: Permission,
        visit: AccessRequest<'_>,
        catalog: &Catalog,
    ) -> Result<Principal, Problem> {
        match (&self.authentication, need) {
            (Authentication::Off, _) => Ok(Principal::AuthenticationDisabled),
            (Authentication::On(_), Permission::Nothing) => Ok(Principal::Anonymous),
            (authentication, _) => {
                authentication.identify(visit.headers, catalog, async || self.lookup(visit).await).await
            }
        }
    }

    /// Waits for a permit to query the database.
    async fn lookup(&self, visit: AccessRequest<'_>) -> Result<Permit, Problem> {
        self.lookups.take_soon(visit.from, "look up their principal").await
    }

    async fn check(
        &self,
        need: Permission,
        principal: &Principal,
        visit: AccessRequest<'_>,
        catalog: &Catalog,
    ) -> Result<(), Problem> {
        let scope = match need {
            Permission::Nothing => return Ok(()),
            Permission::Scope(scope) => scope,
            Permission::ReadProducts | Permission::ReadImages | Permission::ReadOwnProduct => Scope::ProductsRead,
            Permission::OwnProduct => Scope::ProductsWrite,
            Permission::OwnUser => {
                let user = visit.path.strip_prefix("/users/").and_then(|raw| extract::decode_segment(raw).ok());
                let is_own =
                    user.and_then(|user| UserId::parse(&user).ok()).is_some_and(|user| principal.may_act_for(&user));
                return if is_own || principal.has(Scope::Admin) {
                    Ok(())
                } else {
                    Err(principal::lacks(Scope::Admin))
                };
            }
        };
        if !principal.has(scope) {
            return Err(principal::lacks(scope));
        }
        if matches!(need, Permission::OwnProduct | Permission::ReadOwnProduct)
            && !principal.has(Scope::Admin)
            && let Some(id) = visit.path.split('/').nth(2).and_then(|id| path::id(id).ok())
        {
            let owner = {
                let _permit = self.lookup(visit).await?;
                catalog.owner_of(id).await?
            };
            // A product that does not exist is reported by its handler.
            let Some(owner) = owner else { return Ok(()) };
            if need == Permission::ReadOwnProduct && !principal.may_act_for(&owner) {
                return Err(principal::not_yours_to_read());
            }
            principal.must_act_for(&owner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{KeyText, NewApiKey, Scopes},
        http::{admission::connection_slots::ConnectionSlot, table::TABLE, tests::catalog_in},
    };

    #[tokio::test]
    async fn only_uncached_api_keys_wait_for_a_lookup_permit() {
        let directory = tempfile::tempdir().expect("a directory");
        let (catalog, _health) = catalog_in(directory.path()).await;
        let (user_id, scopes) = (UserId::parse("user1").expect("an id"), Scopes::parse(["admin"]).expect("a scope"));
        let new = NewApiKey { name: None, user_id, scopes, lifetime: None };
        let (_, known) = catalog.create_api_key(new).await.expect("a key");
        let authorizer = Authorizer::new(Authentication::On(None), None, PublicRead::default());
        let (address, connection_slot) = (IpAddr::from([192, 0, 2, 1]), ConnectionSlot::for_tests());
        let from = permits::From::new(address, &connection_slot);
        let pass = async |key: &KeyText| {
            let headers = [(header::AUTHORIZATION, format!("Bearer {}", key.reveal()).parse().expect("a header"))];
            let headers = HeaderMap::from_iter(headers);
            let (route, path) = (TABLE.find("/products"), "/products");
            let visit = AccessRequest { route, method: RequestMethod::Get, path, headers: &headers, address, from };
            let outcome = authorizer.pass(visit, &catalog, &mut None).await;
            outcome.map_or_else(|problem| problem.head().status().as_u16(), |_| 200)
        };
        let made_up = |byte| KeyText::of([byte; 32]);
        assert_eq!((pass(&known).await, pass(&made_up(1)).await), (200, 401));
        let mut permits = Vec::new();
        for last in 1..=MAX_LOOKUPS as u8 {
            let from = permits::From::new([198, 51, 100, last].into(), &connection_slot);
            permits.push(authorizer.lookups.take_soon(from, "are tested").await.expect("a permit"));
        }
        let outcomes = (pass(&known).await, pass(&made_up(1)).await, pass(&made_up(2)).await);
        assert_eq!(outcomes, (200, 401, 503), "an invalid key is cached, too");
        drop(permits);
        assert_eq!(pass(&made_up(2)).await, 401);
    }
}
