//! Processes every request: assigns its id, authorizes it, limits concurrency and time, and encodes the response.
//! Cached products are returned here; warp's filters handle all other requests.

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

use super::{
    answers::{self, Answers},
    authorize::{AccessRequest, Authorizer},
    cors,
    explain::Explanation,
    finish::{ClientPreferences, ResponseEncoder},
    incoming::{self, Received},
    observe::{Connection, Observer},
    rate_limit::{Allowance, RateLimit},
    task,
};
use crate::{
    catalog::{Catalog, Freshness},
    code::ErrorCode,
    domain::ProductId,
    http::{
        Config, Hosts, Origins, Proxies, Scope, State,
        admission::{AdmissionControl, BodyPermit, ConnectionSlot, Needs, RequestAdmission, Room, permits},
        endpoint::{Handler, Kind, Route},
        feed::Feed,
        headers::{Client, RequestId, network_of, request_id},
        problem::Problem,
        reply::{self, Outgoing},
        request::{extract::Context, method::RequestMethod, path, principal::Principal, upload},
        table::{self, TABLE},
    },
};

/// Processes requests; shared by all connections.
pub struct Service {
    catalog: Catalog,
    /// The handlers of the table's endpoints, by index.
    handlers: Vec<Handler>,
    product_route: Option<Route>,
    observer: Observer,
    authorizer: Authorizer,
    proxies: Proxies,
    origins: Origins,
    hosts: Hosts,
    hsts: Option<HeaderValue>,
    encoder: ResponseEncoder,
    scope: Scope,
    deadline: Duration,
    admissions: Arc<AdmissionControl>,
    answers: Answers,
    stopping: Arc<AtomicBool>,
    feed: Feed,
}

/// A request's method, route and client.
#[derive(Clone, Copy)]
struct Target {
    method: RequestMethod,
    route: Option<Route>,
    product: Option<ProductId>,
    client: Client,
}

/// Minimum memory limit for the bodies of all requests together; larger if two batches need more.
const BODY_BYTES: usize = 64 << 20;
/// Limits on large responses that clients have not read yet.
const UNREAD: Room = Room { count: 512, bytes: 64 << 20 };

impl Service {
    /// Creates the service over `state` with the limits of `config`.
    pub fn new(state: State, config: &Config) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let feed = Feed::new(state.catalog.clone(), config.authentication.clone(), config.max_streams);
        let handlers = table::handlers((&state, config), &feed, &stopping);
        let rate_limit = config.quota.map(|quota| RateLimit::new(quota, state.health.cache.clone()));
        let hsts = config.hsts_seconds.map(|seconds| format!("max-age={seconds}"));
        Self {
            authorizer: Authorizer::new(config.authentication.clone(), rate_limit, config.public_read),
            proxies: config.proxies.clone(),
            origins: config.origins.clone(),
            hosts: config.hosts.clone(),
            hsts: hsts.and_then(|value| HeaderValue::try_from(value).ok()),
            catalog: state.catalog,
            handlers,
            product_route: TABLE.find("/products/{id}"),
            observer: Observer::new(),
            encoder: ResponseEncoder::new(),
            scope: config.scope,
            deadline: config.deadline,
            admissions: AdmissionControl::new(
                config.max_in_flight,
                BODY_BYTES.max(config.max_batch_body.saturating_mul(2)),
            ),
            answers: Answers::new(UNREAD),
            stopping,
            feed,
        }
    }

    /// Starts the shutdown: `/readyz` reports unready, and event streams end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.feed.stop();
    }

    /// Counts a connection until the returned guard is dropped.
    pub fn connection(&self) -> Connection {
        self.observer.connection()
    }

    /// Processes a request from `peer`; every failure becomes a response.
    /// A large response comes with a permit, held until the client has read it.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Client,
        connection_slot: Arc<ConnectionSlot>,
    ) -> (Response<Outgoing>, Option<BodyPermit>) {
        let method = RequestMethod::of(request.method());
        let (product, route) = self.destination(method, request.uri().path());
        let (version, preferences) = (request.version(), ClientPreferences::of(&request));
        let client = self.proxies.client(peer, request.headers());
        let origin = request.headers().get(header::ORIGIN).filter(|_| self.origins != Origins::Own).cloned();
        let exchange = self.observer.begin(method, route, RequestId::of(request.headers()), client.address);
        let mut allowance = None;
        let target = Target { method, route, product, client };
        let work = self.work(request, target, exchange.request_id(), &connection_slot, &mut allowance);
        let outcome = AssertUnwindSafe(tokio::time::timeout(self.deadline(method, route), work)).catch_unwind().await;
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_elapsed)) => Err(self.too_slow()),
            Err(panic) => Err(Arc::new(Problem::internal(format!("panicked: {}", message_of(&*panic))))),
        };
        let outcome = match outcome {
            Ok(response) => {
                let reads = matches!(method, RequestMethod::Get | RequestMethod::Head);
                let mut response = self.encoder.finish(&preferences, reads, response).await;
                let refused = preferences.refuse(&response);
                if method == RequestMethod::Head {
                    drop_body(&mut response);
                }
                match answers::held_bytes(&response) {
                    _ if refused => Err(Arc::new(not_matched())),
                    None => Ok((response, None)),
                    Some(bytes) => match self.answers.slot(bytes, client.address, &connection_slot).await {
                        Ok(slot) => Ok((response, Some(slot))),
                        Err(no_room) => Err(Arc::new(Problem::from(no_room))),
                    },
                }
            }
            Err(problem) => Err(problem),
        };
        let (mut response, slot, problem) = match outcome {
            Ok((mut response, slot)) => {
                response.extensions_mut().remove::<Arc<RequestAdmission>>();
                (response, slot, None)
            }
            Err(problem) => {
                let json = problem.to_json(exchange.request_id());
                let mut response = problem.head().map(|()| Either::Left(Full::new(json)));
                if method == RequestMethod::Head {
                    drop_body(&mut response);
                }
                (response, None, Some(problem))
            }
        };
        let headers = response.headers_mut();
        headers.insert(request_id::HEADER, exchange.request_id().header_value());
        cors::protect(route, self.hsts.as_ref().filter(|_| client.secure), headers);
        self.origins.add_headers(origin.as_ref(), headers);
        self.authorizer.add_headers((method, route), allowance, headers);
        // During shutdown, `Connection: close` makes the client send its next request over another connection.
        if version <= Version::HTTP_11 && self.stopping.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.finish(response.status(), problem.as_deref());
        (response, slot)
    }

    /// Explains and logs a head from `client` that hyper refuses with this status.
    pub fn explain(&self, status: StatusCode, client: Client) -> Explanation {
        let exchange = self.observer.begin(RequestMethod::Other, None, RequestId::make(), client.address);
        let problem = Problem::unreadable(status);
        let mut headers = problem.head().headers().clone();
        headers.insert(request_id::HEADER, exchange.request_id().header_value());
        cors::protect(None, self.hsts.as_ref().filter(|_| client.secure), &mut headers);
        let body = problem.to_json(exchange.request_id());
        exchange.finish(status, Some(&problem));
        Explanation { headers, body }
    }

    /// Returns the time limit of a request. Uploads check their own rate and may take longer.
    fn deadline(&self, method: RequestMethod, route: Option<Route>) -> Duration {
        let endpoint = route.and_then(|route| route.endpoint(method));
        match endpoint.map(|endpoint| endpoint.kind) {
            Some(Kind::Upload) => self.deadline + upload::UPLOAD_TIMEOUT,
            _ => self.deadline,
        }
    }

    /// Returns the route, and the product if the cache may serve the request.
    fn destination(&self, method: RequestMethod, path: &str) -> (Option<ProductId>, Option<Route>) {
        if self.scope == Scope::Status {
            return (None, TABLE.find(path).filter(|route| route.is(Kind::Status)));
        }
        match cacheable_product(method, path) {
            Some(product) => (Some(product), self.product_route),
            None => (None, TABLE.find(path)),
        }
    }

    async fn work(
        &self,
        request: Request<Incoming>,
        target: Target,
        request_id: &RequestId,
        connection_slot: &Arc<ConnectionSlot>,
        allowance: &mut Option<Allowance>,
    ) -> Result<Response<Outgoing>, Arc<Problem>> {
        let Target { method, route, product, client } = target;
        let request = incoming::received(request);
        self.hosts.check(&request, method, &self.origins)?;
        let principal = match self.authorizer.is_open() {
            true => Principal::AuthenticationDisabled,
            false => Box::pin(self.pass(&request, target, connection_slot, allowance)).await?,
        };
        if let Some(id) = product
            && let Some(body) = self.catalog.hot_body(id).await
        {
            let body = self.catalog.shown_to(principal.reader(), id, body).map_err(Problem::from)?;
            return Ok(
                reply::product(&body, Freshness::Hit, request.headers()).map(|json| Either::Left(Full::new(json)))
            );
        }
        let endpoint = route.and_then(|route| route.endpoint(method));
        let needs = endpoint.map_or(Needs::Read, |endpoint| endpoint.work);
        let admission = self.admissions.admission(client, Arc::clone(connection_slot), needs);
        let params = route.map(|route| route.params(request.uri().path())).unwrap_or_default();
        let context = Context { request_id: request_id.clone(), method, params, principal, admission };
        // At the highest level, so that logged errors have the request id with any log filter.
        let span = tracing::error_span!(target: "pm::http", "request", %request_id);
        // On the heap, so that the future of a cached response stays small.
        Box::pin(self.dispatch(request, route, context, product).instrument(span)).await
    }

    async fn pass(
        &self,
        request: &Request<Received>,
        target: Target,
        connection_slot: &Arc<ConnectionSlot>,
        allowance: &mut Option<Allowance>,
    ) -> Result<Principal, Problem> {
        let Target { method, route, client, .. } = target;
        let (path, headers, address) = (request.uri().path(), request.headers(), client.address);
        let from = permits::From::new(network_of(address), connection_slot);
        let visit = AccessRequest { route, method, path, headers, address, from };
        self.authorizer.pass(visit, &self.catalog, allowance).await
    }

    async fn dispatch(
        &self,
        mut request: Request<Received>,
        route: Option<Route>,
        context: Context,
        product: Option<ProductId>,
    ) -> Result<Response<Outgoing>, Arc<Problem>> {
        let Some(route) = route else {
            return Err(Arc::new(Problem::not_found("no route matches this path")));
        };
        if context.method == RequestMethod::Options {
            return Ok(self.options(route));
        }
        let Some(endpoint) = route.endpoint(context.method) else {
            return Err(Arc::new(method_not_allowed(route)));
        };
        // A request with a body takes its permit after the body is read.
        if endpoint.kind != Kind::Status && !endpoint.reads_body {
            match product {
                Some(id) => self.works_or_shares(id, &context.admission).await?,
                None => context.admission.works().await?,
            }
        }
        if context.method == RequestMethod::Head {
            *request.method_mut() = Method::GET;
        }
        let admission = Arc::clone(&context.admission);
        request.extensions_mut().insert(context);
        let handler = warp::service(self.handlers[endpoint.index].clone()).oneshot(request);
        let outcome = match endpoint.kind {
            // It has no permits, so it ends with its client.
            Kind::Status => handler.await,
            _ => task::to_the_end(handler, &admission).await?,
        };
        let Ok(mut response): Result<_, Infallible> = outcome;
        if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>() {
            return Err(problem);
        }
        // Keeps the request's permits until the response may be sent; otherwise large responses would accumulate.
        response.extensions_mut().insert(admission);
        Ok(response.map(|body| Either::Right(body.boxed_unsync())))
    }

    /// Waits for a permit, or until another request reads the product: one read serves all waiting requests.
    async fn works_or_shares(&self, id: ProductId, admission: &RequestAdmission) -> Result<(), Problem> {
        const POLL_INTERVAL: Duration = Duration::from_millis(25);
        let mut works = pin!(admission.works());
        loop {
            if self.catalog.is_being_read(id) {
                return Ok(());
            }
            if let Ok(outcome) = tokio::time::timeout(POLL_INTERVAL, works.as_mut()).await {
                return outcome;
            }
        }
    }

    fn options(&self, route: Route) -> Response<Outgoing> {
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.allow()));
        self.origins.add_preflight_headers(route, response.headers_mut());
        response
    }

    fn too_slow(&self) -> Arc<Problem> {
        let cause = format!("no response within {:?}", self.deadline);
        Arc::new(Problem::unavailable(ErrorCode::DeadlineExceeded, cause))
    }
}

fn cacheable_product(method: RequestMethod, path: &str) -> Option<ProductId> {
    let is_read = matches!(method, RequestMethod::Get | RequestMethod::Head);
    if is_read { path::id(path.strip_prefix("/products/")?).ok() } else { None }
}

fn method_not_allowed(route: Route) -> Problem {
    let detail = format!("{} allows only {}", route.template(), route.allow());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, detail)
        .with_header(header::ALLOW, HeaderValue::from_static(route.allow()))
}

fn not_matched() -> Problem {
    let detail = "the resource has none of the entity tags in `If-Match`";
    Problem::new(StatusCode::PRECONDITION_FAILED, ErrorCode::PreconditionFailed, detail)
}

/// Converts the response to a `GET` to one to a `HEAD`: all headers, no body.
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
