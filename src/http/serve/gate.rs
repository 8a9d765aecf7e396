//! The gate that every request goes through: who makes it, whether its maker comes too often and may do this. No handler can
//! be reached around it, and none needs to ask whose product it changes.

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::rate_limit::{Allowance, RateLimit};
use crate::{
    catalog::Catalog,
    domain::{Scope, UserId},
    http::{
        access::{Need, PublicRead, need},
        admission::places::{self, Place, Places},
        problem::Problem,
        request::{
            caller::{self, Authentication, Caller},
            extract,
        },
        resources::{products, resource_metadata},
        route::{Route, Verb},
    },
};

/// What the gate looks at.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    /// Where the path leads, if anywhere.
    pub route: Option<Route>,
    /// The method.
    pub verb: Verb,
    /// The path as it stands in the request.
    pub path: &'a str,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Where the client is.
    pub address: IpAddr,
    /// Its network and its connection.
    pub from: places::From,
}

/// Requests that ask the database at a time whether they may be made. A client without a key can ask with one made up, so
/// clients take turns here before anything of them is counted.
const MAX_LOOKUPS: usize = 4;

/// Lets requests pass, or says why not.
pub struct Gate {
    authentication: Authentication,
    rate_limit: Option<RateLimit>,
    public_read: PublicRead,
    lookups: Places,
}

impl Gate {
    /// A gate for callers who have to prove who they are by `authentication`, except for `public_read`, and may not come
    /// more often than `rate_limit` says.
    pub fn new(authentication: Authentication, rate_limit: Option<RateLimit>, public_read: PublicRead) -> Self {
        Self { authentication, rate_limit, public_read, lookups: Places::new(MAX_LOOKUPS) }
    }

    /// Whether every request passes, which is known without looking at it.
    pub const fn is_open(&self) -> bool {
        self.authentication.is_off() && self.rate_limit.is_none()
    }

    /// Who makes the request, if it may be made. What is left of the client's quota is put into `allowance` either way.
    ///
    /// # Errors
    /// 401, 403, 429, or what keeps the answer from being known.
    pub async fn pass(
        &self,
        visit: Visit<'_>,
        catalog: &Catalog,
        allowance: &mut Option<Allowance>,
    ) -> Result<Caller, Problem> {
        let outcome = self.judge(visit, catalog, allowance).await;
        match (&self.authentication, catalog.links().public_url()) {
            (Authentication::On(Some(_)), Some(public)) => {
                let address = || format!("{public}{}", resource_metadata::PATH);
                outcome.map_err(|problem| problem.with_metadata_at(&address()))
            }
            _ => outcome,
        }
    }

    async fn judge(
        &self,
        visit: Visit<'_>,
        catalog: &Catalog,
        allowance: &mut Option<Allowance>,
    ) -> Result<Caller, Problem> {
        let Some(need) = self.need(visit) else { return Ok(Caller::Nobody) };
        let identified = self.identify(need, visit, catalog).await;
        if let Some(limit) = &self.rate_limit
            && !visit.route.is_some_and(Route::is_about_the_server)
        {
            // Who shows a wrong token is counted by the address, like who shows none.
            let client = match &identified {
                Ok(caller) => caller.counted_as(visit.address),
                Err(_) => caller::by_address(visit.address),
            };
            let left = limit.spend(&client).await;
            let outcome = left.outcome();
            *allowance = Some(left);
            outcome?;
        }
        let caller = identified?;
        // A token without the scope opens no less than none at all.
        if !(need == Need::ReadProducts && self.public_read.products) {
            self.check(need, &caller, visit, catalog).await?;
        }
        Ok(caller)
    }

    /// `None` for what asks what could be asked for.
    fn need(&self, visit: Visit<'_>) -> Option<Need> {
        let need = match visit.route {
            _ if visit.verb == Verb::Options => return None,
            // That there is nothing to be had here is told to anyone.
            Some(route) if route.permits(visit.verb) => need(route, visit.verb),
            _ => Need::Nothing,
        };
        let shows_nothing = !visit.headers.contains_key(header::AUTHORIZATION);
        Some(match need {
            Need::ReadImages if self.public_read.images => Need::Nothing,
            Need::ReadProducts if self.public_read.products && shows_nothing => Need::Nothing,
            need => need,
        })
    }

    async fn identify(&self, need: Need, visit: Visit<'_>, catalog: &Catalog) -> Result<Caller, Problem> {
        match (&self.authentication, need) {
            (Authentication::Off, _) => Ok(Caller::Anyone),
            (Authentication::On(_), Need::Nothing) => Ok(Caller::Nobody),
            (authentication, _) => {
                authentication.identify(visit.headers, catalog, async || self.lookup(visit).await).await
            }
        }
    }

    /// A place among the requests that ask the database about their caller.
    async fn lookup(&self, visit: Visit<'_>) -> Result<Place, Problem> {
        self.lookups.take_soon(visit.from, "look up their caller").await
    }

    async fn check(&self, need: Need, caller: &Caller, visit: Visit<'_>, catalog: &Catalog) -> Result<(), Problem> {
        let scope = match need {
            Need::Nothing => return Ok(()),
            Need::Scope(scope) => scope,
            Need::ReadProducts | Need::ReadImages | Need::ReadOwnProduct => Scope::ProductsRead,
            Need::OwnProduct => Scope::ProductsWrite,
            Need::OwnUser => {
                let user = visit.path.strip_prefix("/users/").and_then(|raw| extract::decode_segment(raw).ok());
                let is_own =
                    user.and_then(|user| UserId::parse(&user).ok()).is_some_and(|user| caller.may_act_for(&user));
                return if is_own || caller.has(Scope::Admin) { Ok(()) } else { Err(caller::lacks(Scope::Admin)) };
            }
        };
        if !caller.has(scope) {
            return Err(caller::lacks(scope));
        }
        if matches!(need, Need::OwnProduct | Need::ReadOwnProduct)
            && !caller.has(Scope::Admin)
            && let Some(id) = visit.path.split('/').nth(2).and_then(products::parse_id)
        {
            let owner = {
                let _permit = self.lookup(visit).await?;
                catalog.owner_of(id).await?
            };
            // A product that does not exist is reported by its handler.
            let Some(owner) = owner else { return Ok(()) };
            if need == Need::ReadOwnProduct && !caller.may_act_for(&owner) {
                return Err(caller::not_yours_to_read());
            }
            caller.must_act_for(&owner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{KeyText, NewApiKey, Scopes},
        http::{admission::seats::Seat, tests::catalog_in},
    };

    #[tokio::test]
    async fn only_keys_that_are_not_remembered_wait_for_a_look_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let (catalog, _health) = catalog_in(directory.path()).await;
        let (user_id, scopes) = (UserId::parse("user1").expect("an id"), Scopes::parse(["admin"]).expect("a scope"));
        let new = NewApiKey { name: None, user_id, scopes, lifetime: None };
        let (_, known) = catalog.create_api_key(new).await.expect("a key");
        let gate = Gate::new(Authentication::On(None), None, PublicRead::default());
        let (address, seat) = (IpAddr::from([192, 0, 2, 1]), Seat::for_tests());
        let from = places::From::new(address, &seat);
        let pass = async |key: &KeyText| {
            let headers = [(header::AUTHORIZATION, format!("Bearer {}", key.reveal()).parse().expect("a header"))];
            let headers = HeaderMap::from_iter(headers);
            let (route, path) = (Some(Route::Products), "/products");
            let visit = Visit { route, verb: Verb::Get, path, headers: &headers, address, from };
            let outcome = gate.pass(visit, &catalog, &mut None).await;
            outcome.map_or_else(|problem| problem.head().status().as_u16(), |_| 200)
        };
        let made_up = |byte| KeyText::of([byte; 32]);
        assert_eq!((pass(&known).await, pass(&made_up(1)).await), (200, 401));
        let mut taken = Vec::new();
        for _ in 0..MAX_LOOKUPS {
            taken.push(gate.lookups.take_soon(from, "are tested").await.expect("a place"));
        }
        let outcomes = (pass(&known).await, pass(&made_up(1)).await, pass(&made_up(2)).await);
        assert_eq!(outcomes, (200, 401, 503), "a wrong key is remembered, too");
        drop(taken);
        assert_eq!(pass(&made_up(2)).await, 401);
    }
}
