//! `/events` and `/products/{id}/events`: what happens to products, told while it happens, as server-sent events. The
//! request is answered at once; its body goes on until the client or the server ends it.

mod feed;
mod stream;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use warp::{Filter, Reply as _, filters::BoxedFilter, reply::Response};

pub use feed::Feed;
use stream::{Beginning, Listener};

use super::products;
use crate::{
    catalog::Catalog,
    domain::{EventKind, EventPosition, EventQuery, ProductId, UserId},
    http::{
        State,
        problem::Problem,
        reply,
        request::extract::{self, Context, Pairs},
    },
};

/// What a browser sends when it connects again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells proxies such as nginx to pass each event on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The routes of events.
pub fn routes(state: &State, feed: &Feed) -> BoxedFilter<(Response,)> {
    let headers = warp::header::headers_cloned();
    let all = warp::path!("events")
        .and(warp::get())
        .and(extract::query())
        .and(headers)
        .and(extract::context())
        .and(extract::with(feed));
    let one = warp::path!("products" / String / "events")
        .and(warp::get())
        .and(extract::query())
        .and(headers)
        .and(extract::context())
        .and(extract::with(feed))
        .and(extract::with(&state.catalog));
    extract::boxed(all.then(all_events)).or(extract::boxed(one.then(product_events))).unify().boxed()
}

/// What happens to products from now on, or from an earlier event on.
#[utoipa::path(
    get, path = "/events", tag = "events", operation_id = "listen",
    params(
        ("product_id" = Option<ProductId>, Query, description = "Only this product's"),
        ("user_id" = Option<UserId>, Query, description = "Only those of this user's products"),
        ("types" = Option<Vec<EventKind>>, Query, description = "Only these, with commas between them", style = Form, explode = false),
        ("last_event_id" = Option<String>, Query, description = "As the header, for a first connection", pattern = "^[0-9]+-[0-9]+$"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was seen: all after it follow. One that is \
            older than the events that are kept begins with an event `reset`"),
    ),
    responses((status = 200, description = "Events as they happen; a comment each 15 s", body = String, content_type = "text/event-stream")),
)]
pub async fn all_events(pairs: Pairs, headers: HeaderMap, context: Context, feed: Feed) -> Result<Response, Problem> {
    let query = EventQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    listen(query, &headers, &context, &feed).await
}

/// What happens to a product from now on, or from an earlier event on; ends with its deletion.
#[utoipa::path(
    get, path = "/products/{id}/events", tag = "events", operation_id = "listenToProduct",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("types" = Option<Vec<EventKind>>, Query, description = "Only these, with commas between them", style = Form, explode = false),
        ("last_event_id" = Option<String>, Query, description = "As the header, for a first connection", pattern = "^[0-9]+-[0-9]+$"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was seen: all after it follow"),
    ),
    responses((status = 200, description = "Events as they happen; a comment each 15 s", body = String, content_type = "text/event-stream")),
)]
pub async fn product_events(
    id: String,
    pairs: Pairs,
    headers: HeaderMap,
    context: Context,
    feed: Feed,
    catalog: Catalog,
) -> Result<Response, Problem> {
    let id = products::parse_id(&id).ok_or_else(|| Problem::not_found("a product's id is a number"))?;
    let query = EventQuery::of_product(id, pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    // Listening begins before the look, so that a deletion is seen by one of the two.
    let response = listen(query, &headers, &context, &feed).await?;
    catalog.product_body(id).await?;
    Ok(response)
}

async fn listen(query: EventQuery, headers: &HeaderMap, context: &Context, feed: &Feed) -> Result<Response, Problem> {
    let place = feed.place(context.caller.counted_as(context.turn.client()))?;
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

/// The header goes before the parameter: a browser that connects again sends both, and the parameter is from the beginning.
/// A header that cannot be read begins anew; a browser that is refused would never come back.
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
