//! `/queue`: the state of the job queue, and its dead letters under `/queue/dead`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;

use crate::{
    api::{DeadLetterBody, PageBody, QueueBody},
    catalog::Catalog,
    domain::{DeadQuery, JobId, ProductId, Scope},
    http::{
        admission::Needs,
        endpoint::{Endpoint, Permission, catalog, handler, plain_handler},
        problem::{Problem, ProblemBody},
        reply::{self, Ready},
        request::{
            extract::{self, Context, Pairs},
            idempotency, path,
        },
    },
};

/// Returns the endpoints of the queue.
pub fn endpoints() -> Vec<Endpoint> {
    const ADMIN: Permission = Permission::Scope(Scope::Admin);
    vec![
        Endpoint::new::<__path_status>(ADMIN, |services| plain_handler(catalog(services).then(status))),
        Endpoint::new::<__path_list>(ADMIN, |services| handler(extract::query().and(catalog(services)).then(list)))
            .works_on(Needs::List),
        Endpoint::new::<__path_show>(ADMIN, |services| handler(path::parameter().and(catalog(services)).then(show))),
        Endpoint::new::<__path_retry>(ADMIN, |services| {
            let id = path::parameter().and(warp::header::headers_cloned());
            handler(id.and(extract::context()).and(catalog(services)).then(retry))
        }),
    ]
}

/// Returns the number of jobs by state.
#[utoipa::path(
    get, path = "/queue", tag = "queue", operation_id = "getQueue",
    responses((status = 200, description = "Number of jobs by state", body = QueueBody)),
)]
pub async fn status(catalog: Catalog) -> Result<Ready, Problem> {
    let status = catalog.queue_status().await?;
    reply::json(StatusCode::OK, &QueueBody::new(&status)).map(fresh)
}

/// Lists dead letters, newest first.
#[utoipa::path(
    get, path = "/queue/dead", tag = "queue", operation_id = "listDeadLetters",
    params(
        ("limit" = Option<u64>, Query, description = "Dead letters per page", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page", format = "cursor"),
    ),
    responses((status = 200, description = "A page of dead letters", body = PageBody<DeadLetterBody>, headers(("Link" = String, description = "Link to the next page")))),
)]
pub async fn list(pairs: Pairs, catalog: Catalog) -> Result<Ready, Problem> {
    let query = DeadQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let page = catalog.dead_letters(&query).await?;
    let items = page.items.iter().map(DeadLetterBody::new).collect();
    let mut response = reply::json(StatusCode::OK, &PageBody { items, next_cursor: page.next_cursor.clone() })?;
    if let Some(cursor) = &page.next_cursor {
        response.headers_mut().insert(header::LINK, reply::next_page(catalog.links(), "/queue/dead", &pairs, cursor)?);
    }
    Ok(fresh(response))
}

/// Returns a dead letter with all its attempts.
#[utoipa::path(
    get, path = "/queue/dead/{id}", tag = "queue", operation_id = "getDeadLetter",
    params(("id" = JobId, Path, description = "The job id")),
    responses((status = 200, description = "The dead letter", body = DeadLetterBody)),
)]
pub async fn show(id: JobId, catalog: Catalog) -> Result<Ready, Problem> {
    let (letter, attempts) = catalog.dead_letter(id).await?;
    reply::json(StatusCode::OK, &DeadLetterBody::with_history(&letter, &attempts)).map(fresh)
}

/// A dead letter's job that is queued again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetriedJob)]
pub struct RetriedJobBody {
    /// The job id.
    id: JobId,
    /// The product of the job's image.
    product_id: ProductId,
    /// `queued`.
    status: &'static str,
}

/// Retries a dead letter's job with a full set of attempts.
#[utoipa::path(
    post, path = "/queue/dead/{id}/retry", tag = "queue", operation_id = "retryDeadLetter",
    params(("id" = JobId, Path, description = "The job id")),
    responses(
        (status = 202, description = "The job is queued", body = RetriedJobBody, headers(("Location" = String, description = "URL of the product"))),
        (status = 409, description = "The job is no longer a dead letter", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn retry(id: JobId, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let path = format!("/queue/dead/{id}/retry");
    let once = idempotency::once(&headers, &context.principal, &path, &Bytes::new()).await?;
    idempotency::reply_of(catalog.retry_dead(id, once).await?, |product_id| {
        let accepted = RetriedJobBody { id, product_id, status: "queued" };
        let mut response = reply::json(StatusCode::ACCEPTED, &accepted)?;
        let place = HeaderValue::try_from(catalog.links().product(product_id)).map_err(Problem::internal)?;
        response.headers_mut().insert(header::LOCATION, place);
        Ok(response)
    })
}

/// Marks a response as not cacheable.
fn fresh(mut response: Ready) -> Ready {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
