//! From a request to its answer: the way every request goes, whichever resource it is for. It gives the request its id,
//! bounds how many are worked on and for how long, answers cached products itself and leaves the others to warp's filters.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body as _, Incoming};
use tower::ServiceExt;
use tracing::Instrument;
use warp::{Filter, filters::BoxedFilter};

use super::{
    answers::{self, Answers},
    cors,
    explain::Explanation,
    finish::{Finisher, Wishes},
    gate::{Gate, Visit},
    incoming::{self, Received},
    observe::{Connection, Observer},
    rate_limit::{Allowance, RateLimit},
};
use crate::{
    catalog::{Catalog, Freshness},
    code::ErrorCode,
    domain::ProductId,
    http::{
        Config, Hosts, Origins, Proxies, Scope, State,
        admission::{Needs, Room, Seat, Slot, Turn, Turns, places},
        headers::{Client, RequestId, network_of, request_id},
        openapi,
        problem::{self, Problem},
        reply::{self, Outgoing},
        request::{
            caller::Caller,
            extract::{BodyLimits, Context},
            upload,
        },
        resources::{
            events::{self, Feed},
            images, originals, pictures, product_images, products, queue, resource_metadata, status, users, webhooks,
        },
        route::{Route, Verb},
    },
};

/// Answers requests; shared by every connection.
pub struct Service {
    catalog: Catalog,
    routes: BoxedFilter<(warp::reply::Response,)>,
    observer: Observer,
    gate: Gate,
    proxies: Proxies,
    origins: Origins,
    hosts: Hosts,
    hsts: Option<HeaderValue>,
    finisher: Finisher,
    scope: Scope,
    deadline: Duration,
    turns: Arc<Turns>,
    answers: Answers,
    stopping: Arc<AtomicBool>,
    feed: Feed,
}

/// What a request is for and where it comes from, known from its first line and its connection.
#[derive(Clone, Copy)]
struct Target {
    verb: Verb,
    route: Option<Route>,
    /// The product that may be answered from the cache.
    product: Option<ProductId>,
    client: Client,
}

/// Bytes of bodies that are in memory at a time, of all clients together, unless one batch alone may have half of that.
const BODY_BYTES: usize = 64 << 20;
/// Unread answers of some size: so many at a time, and so many bytes of them.
const UNREAD: Room = Room { count: 512, bytes: 64 << 20 };

impl Service {
    /// The service over `state`, within the limits of `config`.
    pub fn new(state: State, config: &Config) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let limits = BodyLimits { max_bytes: config.max_body, timeout: config.body_timeout };
        let feed = Feed::new(state.catalog.clone(), config.authentication.clone(), config.max_streams);
        let batch = BodyLimits { max_bytes: config.max_batch_body, ..limits };
        let routes = products::routes(&state, limits, batch)
            .or(events::routes(&state, &feed))
            .unify()
            .or(product_images::routes(&state, limits, config.max_upload))
            .unify()
            .or(images::routes(&state))
            .unify()
            .or(users::routes(&state, limits))
            .unify()
            .or(webhooks::routes(&state, limits))
            .unify()
            .or(queue::routes(&state))
            .unify()
            .or(originals::routes(&state))
            .unify()
            .or(pictures::routes(&state))
            .unify()
            .or(openapi::routes(openapi::Deployment {
                is_authenticated: !config.authentication.is_off(),
                base: state.catalog.links().base(),
            }))
            .unify()
            .or(resource_metadata::routes(&state, &config.authentication))
            .unify()
            .or(status::routes(&state, &stopping))
            .unify()
            .recover(problem::from_rejection)
            .unify();
        let rate_limit = config.quota.map(|quota| RateLimit::new(quota, state.health.cache.clone()));
        let hsts = config.hsts_seconds.map(|seconds| format!("max-age={seconds}"));
        Self {
            gate: Gate::new(config.authentication.clone(), rate_limit, config.public_read),
            proxies: config.proxies.clone(),
            origins: config.origins.clone(),
            hosts: config.hosts.clone(),
            hsts: hsts.and_then(|value| HeaderValue::try_from(value).ok()),
            catalog: state.catalog,
            routes: routes.boxed(),
            observer: Observer::new(),
            finisher: Finisher::new(),
            scope: config.scope,
            deadline: config.deadline,
            turns: Turns::new(config.max_in_flight, BODY_BYTES.max(config.max_batch_body.saturating_mul(2))),
            answers: Answers::new(UNREAD),
            stopping,
            feed,
        }
    }

    /// From now on the server says that it is not ready, and streams end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.feed.stop();
    }

    /// Counts a connection for as long as the answer lives.
    pub fn connection(&self) -> Connection {
        self.observer.connection()
    }

    /// Answers a request that came from `peer` over the connection with this seat. Every failure becomes an answer. Beside it
    /// comes the room that it takes until it is read, if it is large.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Client,
        seat: Arc<Seat>,
    ) -> (Response<Outgoing>, Option<Slot>) {
        let verb = Verb::of(request.method());
        let (product, route) = self.destination(verb, request.uri().path());
        let (version, wishes) = (request.version(), Wishes::of(&request));
        let client = self.proxies.client(peer, request.headers());
        let origin = request.headers().get(header::ORIGIN).filter(|_| self.origins != Origins::Own).cloned();
        let exchange = self.observer.begin(verb, route, RequestId::of(request.headers()), client.address);
        let mut allowance = None;
        let target = Target { verb, route, product, client };
        let work = self.work(request, target, exchange.request_id(), &seat, &mut allowance);
        let outcome = AssertUnwindSafe(tokio::time::timeout(self.deadline(verb, route), work)).catch_unwind().await;
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_elapsed)) => Err(self.too_slow()),
            Err(panic) => Err(Arc::new(Problem::internal(format!("panicked: {}", message_of(&*panic))))),
        };
        let outcome = match outcome {
            Ok(response) => {
                let reads = matches!(verb, Verb::Get | Verb::Head);
                let mut response = self.finisher.finish(&wishes, reads, response).await;
                let refused = wishes.refuse(&response);
                if verb == Verb::Head {
                    drop_body(&mut response);
                }
                match answers::held_bytes(&response) {
                    _ if refused => Err(Arc::new(not_matched())),
                    None => Ok((response, None)),
                    Some(bytes) => match self.answers.slot(bytes, client.address, &seat).await {
                        Ok(slot) => Ok((response, Some(slot))),
                        Err(no_room) => Err(Arc::new(Problem::from(no_room))),
                    },
                }
            }
            Err(problem) => Err(problem),
        };
        let (mut response, slot, problem) = match outcome {
            Ok((response, slot)) => (response, slot, None),
            Err(problem) => {
                let json = problem.to_json(exchange.request_id());
                let mut response = problem.head().map(|()| Either::Left(Full::new(json)));
                if verb == Verb::Head {
                    drop_body(&mut response);
                }
                (response, None, Some(problem))
            }
        };
        let headers = response.headers_mut();
        headers.insert(request_id::HEADER, exchange.request_id().header_value());
        cors::protect(route, self.hsts.as_ref().filter(|_| client.secure), headers);
        self.origins.tell(origin.as_ref(), headers);
        if let Some(allowance) = allowance {
            allowance.tell(headers);
        }
        // Who is told so with an answer sends its next request elsewhere, instead of into the end of the connection.
        if version <= Version::HTTP_11 && self.stopping.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.finish(response.status(), problem.as_deref());
        (response, slot)
    }

    /// What is said, and logged, of a head from `client` that hyper refuses with this status.
    pub fn explain(&self, status: StatusCode, client: Client) -> Explanation {
        let exchange = self.observer.begin(Verb::Other, None, RequestId::make(), client.address);
        let problem = Problem::unreadable(status);
        let mut headers = problem.head().headers().clone();
        headers.insert(request_id::HEADER, exchange.request_id().header_value());
        cors::protect(None, self.hsts.as_ref().filter(|_| client.secure), &mut headers);
        let body = problem.to_json(exchange.request_id());
        exchange.finish(status, Some(&problem));
        Explanation { headers, body }
    }

    /// Uploads watch over their pace themselves and may take longer as a whole.
    fn deadline(&self, verb: Verb, route: Option<Route>) -> Duration {
        match (verb, route) {
            (Verb::Post, Some(Route::ProductImages)) => self.deadline + upload::LONGEST,
            _ => self.deadline,
        }
    }

    /// The product that is asked for, if it may be answered from the cache, and the route.
    fn destination(&self, verb: Verb, path: &str) -> (Option<ProductId>, Option<Route>) {
        if self.scope == Scope::Status {
            return (None, Route::find(path).filter(|route| route.is_about_the_server()));
        }
        match cacheable_product(verb, path) {
            Some(product) => (Some(product), Some(Route::Product)),
            None => (None, Route::find(path)),
        }
    }

    async fn work(
        &self,
        request: Request<Incoming>,
        target: Target,
        request_id: &RequestId,
        seat: &Arc<Seat>,
        allowance: &mut Option<Allowance>,
    ) -> Result<Response<Outgoing>, Arc<Problem>> {
        let Target { verb, route, product, client } = target;
        let request = incoming::received(request);
        self.hosts.check(&request, verb, &self.origins)?;
        let caller = match self.gate.is_open() {
            true => Caller::Anyone,
            false => Box::pin(self.pass(&request, target, seat, allowance)).await?,
        };
        if let Some(id) = product
            && let Some(body) = self.catalog.hot_body(id).await
        {
            let body = self.catalog.shown_to(caller.reader(), id, body).map_err(Problem::from)?;
            return Ok(
                reply::product(&body, Freshness::Hit, request.headers()).map(|json| Either::Left(Full::new(json)))
            );
        }
        let needs = route.map_or(Needs::Data, |route| route.needs(verb));
        let turn = self.turns.turn(client, Arc::clone(seat), needs);
        let context = Context { request_id: request_id.clone(), verb, caller, turn };
        // At the highest level, so that errors bear the request's id whatever else is logged.
        let span = tracing::error_span!(target: "pm::http", "request", %request_id);
        // On the heap, so that answering from the cache does not carry the room for everything else along.
        Box::pin(self.dispatch(request, route, context, product).instrument(span)).await
    }

    async fn pass(
        &self,
        request: &Request<Received>,
        target: Target,
        seat: &Arc<Seat>,
        allowance: &mut Option<Allowance>,
    ) -> Result<Caller, Problem> {
        let Target { verb, route, client, .. } = target;
        let (path, headers, address) = (request.uri().path(), request.headers(), client.address);
        let from = places::From::new(network_of(address), seat);
        let visit = Visit { route, verb, path, headers, address, from };
        self.gate.pass(visit, &self.catalog, allowance).await
    }

    async fn dispatch(
        &self,
        mut request: Request<Received>,
        route: Option<Route>,
        context: Context,
        product: Option<ProductId>,
    ) -> Result<Response<Outgoing>, Arc<Problem>> {
        let Some(route) = route else {
            return Err(Arc::new(Problem::not_found("there is nothing at this path")));
        };
        if context.verb == Verb::Options {
            return Ok(self.options(route));
        }
        if !route.permits(context.verb) {
            return Err(Arc::new(method_not_allowed(route)));
        }
        // A body is read before its request is worked on.
        if !route.is_about_the_server() && !route.reads_body(context.verb) {
            match product {
                Some(id) => self.works_or_shares(id, &context.turn).await?,
                None => context.turn.works().await?,
            }
        }
        if context.verb == Verb::Head {
            *request.method_mut() = Method::GET;
        }
        request.extensions_mut().insert(context);
        let Ok(mut response): Result<_, Infallible> = warp::service(self.routes.clone()).oneshot(request).await;
        match response.extensions_mut().remove::<Arc<Problem>>() {
            Some(problem) => Err(problem),
            None => Ok(response.map(|body| Either::Right(body.boxed_unsync()))),
        }
    }

    /// Waits for a permit, or until the product is being read: the next read of it serves all who wait.
    async fn works_or_shares(&self, id: ProductId, turn: &Turn) -> Result<(), Problem> {
        /// A read that began meanwhile is noticed within this.
        const LOOK_AGAIN: Duration = Duration::from_millis(25);
        let mut works = pin!(turn.works());
        loop {
            if self.catalog.is_being_read(id) {
                return Ok(());
            }
            if let Ok(outcome) = tokio::time::timeout(LOOK_AGAIN, works.as_mut()).await {
                return outcome;
            }
        }
    }

    fn options(&self, route: Route) -> Response<Outgoing> {
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.allow()));
        self.origins.tell_before(route, response.headers_mut());
        response
    }

    fn too_slow(&self) -> Arc<Problem> {
        let cause = format!("no answer within {:?}", self.deadline);
        Arc::new(Problem::unavailable(ErrorCode::DeadlineExceeded, cause))
    }
}

/// The product that a request wants to read, if its id is written as it should be.
fn cacheable_product(verb: Verb, path: &str) -> Option<ProductId> {
    match verb {
        Verb::Get | Verb::Head => products::parse_id(path.strip_prefix("/products/")?),
        _ => None,
    }
}

fn method_not_allowed(route: Route) -> Problem {
    let detail = format!("{} takes {}", route.template(), route.allow());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, detail)
        .with_header(header::ALLOW, HeaderValue::from_static(route.allow()))
}

fn not_matched() -> Problem {
    let detail = "what is here has none of the entity tags in If-Match";
    Problem::new(StatusCode::PRECONDITION_FAILED, ErrorCode::PreconditionFailed, detail)
}

/// Makes the answer to a `GET` one to a `HEAD`: all headers, no body.
fn drop_body(response: &mut Response<Outgoing>) {
    if let Some(length) = response.body().size_hint().exact()
        && response.status() != StatusCode::NOT_MODIFIED
        && response.status() != StatusCode::NO_CONTENT
    {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    *response.body_mut() = Either::Left(Full::default());
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
