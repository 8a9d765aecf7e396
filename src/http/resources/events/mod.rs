//! `/events` and `/products/{id}/events`: live events about products as server-sent events.
//!
//! The server sends the response's head at once. The body continues until the client or the server closes the stream.

mod stream;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use warp::{Filter, Reply as _, reply::Response};

use stream::{Beginning, Listener};

use crate::{
    catalog::Catalog,
    domain::{EventKind, EventPosition, EventQuery, ProductId, Scope, UserId},
    http::{
        endpoint::{Endpoint, Permission, handler},
        feed::Feed,
        problem::Problem,
        reply,
        request::{
            extract::{self, Context, Pairs},
            path,
        },
    },
};

/// The header that a browser sends when it reconnects.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Disables response buffering in proxies such as nginx.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Returns the endpoints of events.
pub fn endpoints() -> Vec<Endpoint> {
    const READ: Permission = Permission::Scope(Scope::ProductsRead);
    vec![
        Endpoint::new::<__path_product_events>(READ, |services| {
            let id = path::parameter().and(extract::query()).and(warp::header::headers_cloned());
            let feed = extract::context().and(extract::with(services.feed));
            handler(id.and(feed).and(extract::with(&services.state.catalog)).then(product_events))
        }),
        Endpoint::new::<__path_all_events>(READ, |services| {
            let query = extract::query().and(warp::header::headers_cloned()).and(extract::context());
            handler(query.and(extract::with(services.feed)).then(all_events))
        }),
    ]
}

/// Streams events of all products.
///
/// The stream starts now, or after the event in `Last-Event-ID`.
#[utoipa::path(
    get, path = "/events", tag = "events", operation_id = "streamEvents",
    params(
        ("product_id" = Option<ProductId>, Query, description = "Only events of this product"),
        ("user_id" = Option<UserId>, Query, description = "Only events of this user's products"),
        ("types" = Option<Vec<EventKind>>, Query, description = "Only events of these types, separated by commas", style = Form, explode = false),
        ("last_event_id" = Option<String>, Query, description = "Same as the header `Last-Event-ID`, for the first connection", pattern = "^[0-9]+-[0-9]+$"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last received event; the stream resumes after it. If the server \
            no longer has the events after it, the stream starts with an event `reset`"),
    ),
    responses((status = 200, description = "A stream of events; a comment every 15 s keeps the connection alive", body = String, content_type = "text/event-stream")),
)]
pub async fn all_events(pairs: Pairs, headers: HeaderMap, context: Context, feed: Feed) -> Result<Response, Problem> {
    let query = EventQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    listen(query, &headers, &context, &feed).await
}

/// Streams events of a product.
///
/// The stream starts now, or after the event in `Last-Event-ID`. It ends when the product is deleted.
#[utoipa::path(
    get, path = "/products/{id}/events", tag = "events", operation_id = "streamProductEvents",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("types" = Option<Vec<EventKind>>, Query, description = "Only events of these types, separated by commas", style = Form, explode = false),
        ("last_event_id" = Option<String>, Query, description = "Same as the header `Last-Event-ID`, for the first connection", pattern = "^[0-9]+-[0-9]+$"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last received event; the stream resumes after it"),
    ),
    responses((status = 200, description = "A stream of events; a comment every 15 s keeps the connection alive", body = String, content_type = "text/event-stream")),
)]
pub async fn product_events(
    id: ProductId,
    pairs: Pairs,
    headers: HeaderMap,
    context: Context,
    feed: Feed,
    catalog: Catalog,
) -> Result<Response, Problem> {
    let query = EventQuery::of_product(id, pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    // Subscribing before the check ensures that one of the two notices a deletion.
    let response = listen(query, &headers, &context, &feed).await?;
    catalog.product_body(id).await?;
    Ok(response)
}

async fn listen(query: EventQuery, headers: &HeaderMap, context: &Context, feed: &Feed) -> Result<Response, Problem> {
    let place = feed.place(context.principal.counted_as(context.admission.client()))?;
    let subscription = feed.subscribe().await?;
    let beginning = match asked(&query, headers) {
        Asked::Now => Beginning::Now,
        Asked::After(position) if feed.remembers_since(position).await? => Beginning::After(position),
        Asked::After(_) | Asked::Unreadable => Beginning::Reset,
    };
    let listener =
        Listener::new(feed.clone(), query.filter, subscription, beginning, place).let_in_by(feed.admission(headers));
    let mut response = reply::stream(listener.into_stream()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

enum Asked {
    Now,
    After(EventPosition),
    Unreadable,
}

/// Returns the position that the request asks for.
///
/// The header takes precedence over the parameter: a browser that reconnects sends both, and the parameter is older. An
/// invalid header resets the stream, because a browser does not reconnect after an error response.
fn asked(query: &EventQuery, headers: &HeaderMap) -> Asked {
    let header = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    match (header, query.after) {
        (Some(id), _) => match id.to_str().ok().and_then(|id| id.trim().parse().ok()) {
            Some(position) => Asked::After(position),
            None => Asked::Unreadable,
        },
        (None, Some(position)) => Asked::After(position),
        (None, None) => Asked::Now,
    }
}
