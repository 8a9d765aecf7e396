//! `/webhooks`: registers webhooks, lists their deliveries and retries a delivery.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;

use crate::{
    api::{DeliveryBody, NewWebhookShape, PageBody, WebhookBody},
    catalog::Catalog,
    domain::{DeliveryId, DeliveryQuery, NewWebhook, Scope, Webhook, WebhookId},
    http::{
        admission::Needs,
        endpoint::{Endpoint, Permission, catalog, handler, plain_handler},
        headers::etag,
        problem::{Problem, ProblemBody},
        reply::{self, Ready},
        request::{
            extract::{self, Context, Pairs},
            idempotency, path,
        },
    },
};

/// Returns the endpoints of webhooks.
pub fn endpoints() -> Vec<Endpoint> {
    const ADMIN: Permission = Permission::Scope(Scope::Admin);
    vec![
        Endpoint::new::<__path_list>(ADMIN, |services| plain_handler(catalog(services).then(list))),
        Endpoint::new::<__path_create>(ADMIN, |services| {
            let body = extract::json_body(services.body).and(warp::header::headers_cloned());
            handler(body.and(extract::context()).and(catalog(services)).then(create))
        }),
        Endpoint::new::<__path_show>(ADMIN, |services| handler(path::parameter().and(catalog(services)).then(show))),
        Endpoint::new::<__path_delete>(ADMIN, |services| {
            let id = path::parameter().and(warp::header::headers_cloned());
            handler(id.and(catalog(services)).then(delete))
        }),
        Endpoint::new::<__path_enable>(ADMIN, |services| {
            let id = path::parameter().and(warp::header::headers_cloned());
            handler(id.and(extract::context()).and(catalog(services)).then(enable))
        }),
        Endpoint::new::<__path_deliveries>(ADMIN, |services| {
            let query = path::parameter().and(extract::query());
            handler(query.and(catalog(services)).then(deliveries))
        })
        .works_on(Needs::List),
        Endpoint::new::<__path_retry>(ADMIN, |services| {
            let ids = path::parameter().and(path::parameter()).and(warp::header::headers_cloned());
            handler(ids.and(extract::context()).and(catalog(services)).then(retry))
        }),
    ]
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
pub async fn show(id: WebhookId, catalog: Catalog) -> Result<Ready, Problem> {
    answer(&catalog.webhook(id).await?)
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
pub async fn delete(id: WebhookId, headers: HeaderMap, catalog: Catalog) -> Result<Ready, Problem> {
    catalog.delete_webhook(id, etag::conditions(&headers).as_ref()).await?;
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
pub async fn enable(id: WebhookId, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
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
pub async fn deliveries(webhook: WebhookId, pairs: Pairs, catalog: Catalog) -> Result<Ready, Problem> {
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
    id: WebhookId,
    delivery: DeliveryId,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let path = format!("/webhooks/{id}/deliveries/{delivery}/retry");
    let once = idempotency::once(&headers, &context.principal, &path, &Bytes::new()).await?;
    let retried = catalog.retry_delivery(id, delivery, once).await?;
    let queued = RetriedDeliveryBody { id: delivery, state: "queued" };
    idempotency::reply_of(retried, |()| reply::json(StatusCode::ACCEPTED, &queued))
}

fn answer(webhook: &Webhook) -> Result<Ready, Problem> {
    reply::tagged(reply::json(StatusCode::OK, &WebhookBody::new(webhook))?, WebhookBody::tag(webhook)?)
}
