//! From a request to its answer: the way every request goes, whichever resource it is for. It gives the request its id,
//! bounds how many are worked on and for how long, answers cached products itself and leaves the others to warp's filters.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyDataStream, BodyExt, Either, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Incoming};
use tower::ServiceExt;
use tracing::Instrument;
use warp::{Filter, filters::BoxedFilter};

use super::{
    Config, Scope, State,
    events::{self, Feed},
    extract::{self, BodyLimits, Context},
    finish::{Finisher, Wishes},
    images,
    observe::{Connection, Observer},
    openapi, pictures,
    problem::{self, Problem},
    products, queue, reply,
    request_id::{self, RequestId},
    route::{Route, Verb},
    seats::Seat,
    status, users,
};
use crate::{
    catalog::{Catalog, Freshness},
    code::ErrorCode,
    domain::ProductId,
};

/// An answer's body: bytes that are all there, or a stream from one of warp's replies.
pub type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, warp::Error>>;

/// Answers requests; shared by every connection.
pub struct Service {
    catalog: Catalog,
    routes: BoxedFilter<(warp::reply::Response,)>,
    observer: Observer,
    finisher: Finisher,
    scope: Scope,
    deadline: Duration,
    max_in_flight: usize,
    in_flight: AtomicUsize,
    stopping: Arc<AtomicBool>,
    feed: Feed,
}

/// A request's share of what may be in flight; given back when dropped.
struct Admission<'a>(&'a AtomicUsize);

impl Service {
    /// The service over `state`, within the limits of `config`.
    pub fn new(state: State, config: &Config) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let limits = BodyLimits { max_bytes: config.max_body, timeout: config.body_timeout };
        let feed = Feed::new(state.catalog.clone(), config.max_streams);
        let routes = products::routes(&state, limits)
            .or(events::routes(&state, &feed))
            .unify()
            .or(images::routes(&state))
            .unify()
            .or(users::routes(&state, limits))
            .unify()
            .or(queue::routes(&state))
            .unify()
            .or(pictures::routes(&state))
            .unify()
            .or(openapi::routes())
            .unify()
            .or(status::routes(&state, &stopping))
            .unify()
            .recover(problem::from_rejection)
            .unify();
        Self {
            catalog: state.catalog,
            routes: routes.boxed(),
            observer: Observer::new(),
            finisher: Finisher::new(),
            scope: config.scope,
            deadline: config.deadline,
            max_in_flight: config.max_in_flight,
            in_flight: AtomicUsize::new(0),
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

    /// Answers a request that came over the connection with this seat. Every failure becomes an answer.
    pub async fn answer(&self, request: Request<Incoming>, seat: Arc<Seat>) -> Response<Body> {
        let verb = Verb::of(request.method());
        let (product, route) = self.destination(verb, request.uri().path());
        let (version, wishes) = (request.version(), Wishes::of(&request));
        let exchange = self.observer.begin(verb, route, RequestId::of(request.headers()));
        let work = self.work(request, verb, route, product, exchange.request_id(), seat);
        let outcome = AssertUnwindSafe(tokio::time::timeout(self.deadline, work)).catch_unwind().await;
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_elapsed)) => Err(self.too_slow()),
            Err(panic) => Err(Arc::new(Problem::internal(format!("panicked: {}", message_of(&*panic))))),
        };
        let (mut response, problem) = match outcome {
            Ok(response) => {
                let reads = matches!(verb, Verb::Get | Verb::Head);
                (self.finisher.finish(&wishes, reads, response).await, None)
            }
            Err(problem) => {
                let json = problem.to_json(exchange.request_id());
                (problem.head().map(|()| Either::Left(Full::new(json))), Some(problem))
            }
        };
        if verb == Verb::Head {
            drop_body(&mut response);
        }
        response.headers_mut().insert(request_id::HEADER, exchange.request_id().header_value());
        // Who is told so with an answer sends its next request elsewhere, instead of into the end of the connection.
        if version <= Version::HTTP_11 && self.stopping.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.finish(response.status(), problem.as_deref());
        response
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
        verb: Verb,
        route: Option<Route>,
        product: Option<ProductId>,
        request_id: &RequestId,
        seat: Arc<Seat>,
    ) -> Result<Response<Body>, Arc<Problem>> {
        let _admission = match route {
            Some(route) if route.is_about_the_server() => None,
            _ => Some(self.admit()?),
        };
        if let Some(id) = product
            && let Some(body) = self.catalog.hot_body(id).await
        {
            return Ok(
                reply::product(&body, Freshness::Hit, request.headers()).map(|json| Either::Left(Full::new(json)))
            );
        }
        let context = Context { request_id: request_id.clone(), verb, seat };
        // At the highest level, so that errors bear the request's id whatever else is logged.
        let span = tracing::error_span!(target: "pm::http", "request", %request_id);
        // On the heap, so that answering from the cache does not carry the room for everything else along.
        Box::pin(self.dispatch(request, route, context).instrument(span)).await
    }

    async fn dispatch(
        &self,
        mut request: Request<Incoming>,
        route: Option<Route>,
        context: Context,
    ) -> Result<Response<Body>, Arc<Problem>> {
        let Some(route) = route else {
            refuse_body(request).await;
            return Err(Arc::new(Problem::not_found("there is nothing at this path")));
        };
        if context.verb == Verb::Options {
            refuse_body(request).await;
            return Ok(options(route));
        }
        if !route.permits(context.verb) {
            refuse_body(request).await;
            return Err(Arc::new(method_not_allowed(route)));
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

    fn admit(&self) -> Result<Admission<'_>, Arc<Problem>> {
        let admission = Admission(&self.in_flight);
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.max_in_flight {
            return Ok(admission);
        }
        let cause = format!("{} requests are in flight already", self.max_in_flight);
        Err(Arc::new(Problem::unavailable(ErrorCode::Unavailable, cause)))
    }

    fn too_slow(&self) -> Arc<Problem> {
        let cause = format!("no answer within {:?}", self.deadline);
        Arc::new(Problem::unavailable(ErrorCode::DeadlineExceeded, cause))
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The product that a request wants to read, if its id is written as it should be.
fn cacheable_product(verb: Verb, path: &str) -> Option<ProductId> {
    match verb {
        Verb::Get | Verb::Head => products::parse_id(path.strip_prefix("/products/")?),
        _ => None,
    }
}

fn options(route: Route) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.allow()));
    response
}

fn method_not_allowed(route: Route) -> Problem {
    let detail = format!("{} takes {}", route.template(), route.allow());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, detail)
        .with_header(header::ALLOW, HeaderValue::from_static(route.allow()))
}

async fn refuse_body(request: Request<Incoming>) {
    if !extract::waits_for_continue(request.headers()) {
        extract::discard(BodyDataStream::new(request.into_body())).await;
    }
}

/// Makes the answer to a `GET` one to a `HEAD`: all headers, no body.
fn drop_body(response: &mut Response<Body>) {
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
