//! `/webhooks`: registers webhooks, lists their deliveries and retries a delivery.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use warp::{Filter, filters::BoxedFilter, reply::Response};

use crate::{
    api::{DeliveryBody, NewWebhookShape, PageBody, WebhookBody},
    catalog::Catalog,
    domain::{DeliveryId, DeliveryQuery, NewWebhook, Webhook, WebhookId},
    http::{
        State,
        headers::etag,
        problem::{Problem, ProblemBody},
        reply::{self, Ready},
        request::{
            extract::{self, BodyLimits, Context, Pairs},
            idempotency, path,
        },
    },
};

/// Returns the routes of webhooks.
pub fn routes(state: &State, limits: BodyLimits) -> BoxedFilter<(Response,)> {
    let catalog = extract::with(&state.catalog);
    let body = extract::json_body(limits);
    let headers = warp::header::headers_cloned();
    let request = headers.and(extract::context());
    let create =
        warp::path!("webhooks").and(warp::post()).and(body).and(request.clone()).and(catalog.clone()).then(create);
    let list = warp::path!("webhooks").and(warp::get()).and(catalog.clone()).then(list);
    let one = warp::path!("webhooks" / String);
    let show = one.and(warp::get()).and(catalog.clone()).then(show);
    let delete = one.and(warp::delete()).and(headers).and(catalog.clone()).then(delete);
    let enabling = warp::path!("webhooks" / String / "enable").and(warp::post());
    let enable = enabling.and(request.clone()).and(catalog.clone()).then(enable);
    let sent = warp::path!("webhooks" / String / "deliveries").and(warp::get());
    let sent = sent.and(extract::query()).and(catalog.clone()).then(deliveries);
    let again = warp::path!("webhooks" / String / "deliveries" / String / "retry").and(warp::post());
    let again = again.and(request).and(catalog).then(retry);
    extract::boxed(create)
        .or(extract::boxed(list))
        .unify()
        .or(extract::boxed(show))
        .unify()
        .or(extract::boxed(delete))
        .unify()
        .or(extract::boxed(enable))
        .unify()
        .or(extract::boxed(sent))
        .unify()
        .or(extract::boxed(again))
        .unify()
        .boxed()
}

/// Registers a webhook.
///
/// The signing secret is returned only in this response.
#[utoipa::path(
    post, path = "/webhooks", tag = "webhooks", operation_id = "createWebhook", request_body = NewWebhookShape,
    params(("If-None-Match" = Option<String>, Header, description = "`*` always succeeds, since the webhook is new")),
    responses(
        (status = 201, description = "The created webhook with its secret", body = WebhookBody, headers(
            ("Location" = String, description = "URL of the webhook"),
            ("ETag" = String, description = "The entity tag of the webhook, as later reads return it"),
        )),
        (status = 409, description = "The maximum number of webhooks is reached", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create(body: Bytes, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    if let Some(condition) = etag::conditions(&headers) {
        condition.check_creation("a webhook")?;
    }
    let policy = catalog.policy().clone();
    let new = extract::parsed(body.clone(), move |json| Ok(NewWebhook::from_json(json, &policy)??)).await?;
    let once = idempotency::once(&headers, &context.principal, "/webhooks", &body).await?;
    idempotency::reply_of(catalog.create_webhook(new, once).await?, |(webhook, secret)| {
        let body = WebhookBody::with_secret(&webhook, &secret);
        reply::tagged(reply::created(&body, catalog.links().webhook(webhook.id))?, WebhookBody::tag(&webhook)?)
    })
}

/// Lists all webhooks, without their secrets.
#[utoipa::path(
    get, path = "/webhooks", tag = "webhooks", operation_id = "listWebhooks",
    responses((status = 200, description = "All webhooks", body = PageBody<WebhookBody>)),
)]
pub async fn list(catalog: Catalog) -> Result<Ready, Problem> {
    let webhooks = catalog.webhooks().await?;
    let items = webhooks.iter().map(WebhookBody::new).collect();
    reply::json(StatusCode::OK, &PageBody { items, next_cursor: None })
}

/// Returns a webhook and its state.
#[utoipa::path(
    get, path = "/webhooks/{id}", tag = "webhooks", operation_id = "getWebhook",
    params(("id" = WebhookId, Path, description = "The webhook id")),
    responses((status = 200, description = "The webhook", body = WebhookBody, headers(("ETag" = String, description = "A strong entity tag")))),
)]
pub async fn show(id: String, catalog: Catalog) -> Result<Ready, Problem> {
    answer(&catalog.webhook(path::id(&id)?).await?)
}

/// Deletes a webhook and its delivery history.
#[utoipa::path(
    delete, path = "/webhooks/{id}", tag = "webhooks", operation_id = "deleteWebhook",
    params(
        ("id" = WebhookId, Path, description = "The webhook id"),
        ("If-Match" = Option<String>, Header, description = "Proceed only if the webhook's entity tag is one of these"),
    ),
    responses(
        (status = 204, description = "The webhook was deleted"),
    ),
)]
pub async fn delete(id: String, headers: HeaderMap, catalog: Catalog) -> Result<Ready, Problem> {
    catalog.delete_webhook(path::id(&id)?, etag::conditions(&headers).as_ref()).await?;
    Ok(reply::gone())
}

/// Enables a disabled webhook and sends its pending deliveries.
#[utoipa::path(
    post, path = "/webhooks/{id}/enable", tag = "webhooks", operation_id = "enableWebhook",
    params(
        ("id" = WebhookId, Path, description = "The webhook id"),
        ("If-Match" = Option<String>, Header, description = "Proceed only if the webhook's entity tag is one of these"),
    ),
    responses(
        (status = 200, description = "The webhook", body = WebhookBody, headers(("ETag" = String, description = "The new entity tag"))),
    ),
)]
pub async fn enable(id: String, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let id: WebhookId = path::id(&id)?;
    let path = format!("/webhooks/{id}/enable");
    let once = idempotency::once(&headers, &context.principal, &path, &Bytes::new()).await?;
    let enabled = catalog.enable_webhook(id, etag::conditions(&headers).as_ref(), once).await?;
    idempotency::reply_of(enabled, |webhook| answer(&webhook))
}

/// Lists a webhook's deliveries of the last week, newest first.
#[utoipa::path(
    get, path = "/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "listDeliveries",
    params(
        ("id" = WebhookId, Path, description = "The webhook id"),
        ("limit" = Option<u64>, Query, description = "Deliveries per page", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page", format = "cursor"),
    ),
    responses((status = 200, description = "A page of deliveries", body = PageBody<DeliveryBody>, headers(("Link" = String, description = "Link to the next page")))),
)]
pub async fn deliveries(id: String, pairs: Pairs, catalog: Catalog) -> Result<Ready, Problem> {
    let webhook: WebhookId = path::id(&id)?;
    let query = DeliveryQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let page = catalog.deliveries(webhook, query).await?;
    let items = page.items.iter().map(DeliveryBody::new).collect();
    let mut response = reply::json(StatusCode::OK, &PageBody { items, next_cursor: page.next_cursor.clone() })?;
    if let Some(cursor) = &page.next_cursor {
        let path = format!("/webhooks/{webhook}/deliveries");
        response.headers_mut().insert(header::LINK, reply::next_page(catalog.links(), &path, &pairs, cursor)?);
    }
    Ok(response)
}

/// A delivery that is queued again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetriedDelivery)]
pub struct RetriedDeliveryBody {
    /// The delivery id.
    id: DeliveryId,
    /// `queued`.
    state: &'static str,
}

/// Retries a delivery that succeeded or failed for good.
#[utoipa::path(
    post, path = "/webhooks/{id}/deliveries/{delivery_id}/retry", tag = "webhooks", operation_id = "retryDelivery",
    params(
        ("id" = WebhookId, Path, description = "The webhook id"),
        ("delivery_id" = DeliveryId, Path, description = "The delivery id"),
    ),
    responses(
        (status = 202, description = "The delivery is queued", body = RetriedDeliveryBody),
        (status = 409, description = "The delivery is already queued or in progress", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retry(
    id: String,
    delivery: String,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let (id, delivery): (WebhookId, DeliveryId) = (path::id(&id)?, path::id(&delivery)?);
    let path = format!("/webhooks/{id}/deliveries/{delivery}/retry");
    let once = idempotency::once(&headers, &context.principal, &path, &Bytes::new()).await?;
    let retried = catalog.retry_delivery(id, delivery, once).await?;
    let queued = RetriedDeliveryBody { id: delivery, state: "queued" };
    idempotency::reply_of(retried, |()| reply::json(StatusCode::ACCEPTED, &queued))
}

fn answer(webhook: &Webhook) -> Result<Ready, Problem> {
    reply::tagged(reply::json(StatusCode::OK, &WebhookBody::new(webhook))?, WebhookBody::tag(webhook)?)
}
