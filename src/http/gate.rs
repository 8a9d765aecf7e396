//! The gate that every request goes through: who makes it, whether its maker comes too often and may do this. No handler can
//! be reached around it, and none needs to ask whose product it changes.

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::{
    access::{Need, PublicRead, need},
    caller::{self, Authentication, Caller},
    extract,
    problem::Problem,
    products,
    rate_limit::{Allowance, RateLimit},
    resource_metadata,
    route::{Route, Verb},
};
use crate::{
    catalog::Catalog,
    domain::{Scope, UserId},
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
}

/// Lets requests pass, or says why not.
pub struct Gate {
    authentication: Authentication,
    rate_limit: Option<RateLimit>,
    public_read: PublicRead,
}

impl Gate {
    /// A gate for callers who have to prove who they are by `authentication`, except for `public_read`, and may not come
    /// more often than `rate_limit` says.
    pub fn new(authentication: Authentication, rate_limit: Option<RateLimit>, public_read: PublicRead) -> Self {
        Self { authentication, rate_limit, public_read }
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
            check(need, &caller, visit.path, catalog).await?;
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
            (authentication, _) => authentication.identify(visit.headers, catalog).await,
        }
    }
}

async fn check(need: Need, caller: &Caller, path: &str, catalog: &Catalog) -> Result<(), Problem> {
    let scope = match need {
        Need::Nothing => return Ok(()),
        Need::Scope(scope) => scope,
        Need::ReadProducts | Need::ReadImages | Need::ReadOwnProduct => Scope::ProductsRead,
        Need::OwnProduct => Scope::ProductsWrite,
        Need::OwnUser => {
            let user = path.strip_prefix("/users/").and_then(|raw| extract::decode_segment(raw).ok());
            let is_own = user.and_then(|user| UserId::parse(&user).ok()).is_some_and(|user| caller.may_act_for(&user));
            return if is_own || caller.has(Scope::Admin) { Ok(()) } else { Err(caller::lacks(Scope::Admin)) };
        }
    };
    if !caller.has(scope) {
        return Err(caller::lacks(scope));
    }
    if matches!(need, Need::OwnProduct | Need::ReadOwnProduct)
        && !caller.has(Scope::Admin)
        && let Some(id) = path.split('/').nth(2).and_then(products::parse_id)
        // A product that is not there is the handler's matter, which says so.
        && let Some(owner) = catalog.owner_of(id).await?
    {
        if need == Need::ReadOwnProduct && !caller.may_act_for(&owner) {
            return Err(caller::not_yours_to_read());
        }
        caller.must_act_for(&owner)?;
    }
    Ok(())
}
