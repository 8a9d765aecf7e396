//! `/users` and `/users/{id}`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use warp::Filter;

use crate::{
    api::{NewUserShape, PageBody, UserBody},
    catalog::{Catalog, Error},
    domain::{NewUser, Scope, UserId, UserQuery},
    http::{
        admission::Needs,
        endpoint::{Endpoint, Permission, catalog, handler},
        headers::etag,
        problem::{Problem, ProblemBody},
        reply::{self, Ready},
        request::{
            extract::{self, Context, Pairs},
            idempotency, path,
        },
    },
};

/// Returns the endpoints of users.
pub fn endpoints() -> Vec<Endpoint> {
    const ADMIN: Permission = Permission::Scope(Scope::Admin);
    vec![
        Endpoint::new::<__path_list>(ADMIN, |services| handler(extract::query().and(catalog(services)).then(list)))
            .works_on(Needs::List),
        Endpoint::new::<__path_create>(ADMIN, |services| {
            let body = extract::json_body(services.body).and(warp::header::headers_cloned());
            handler(body.and(extract::context()).and(catalog(services)).then(create))
        }),
        Endpoint::new::<__path_show>(Permission::OwnUser, |services| {
            handler(path::text("id").and(catalog(services)).then(show))
        }),
    ]
}

/// Returns a user.
#[utoipa::path(
    get, path = "/users/{id}", tag = "users", operation_id = "getUser",
    params(("id" = UserId, Path, description = "The user id")),
    responses((status = 200, description = "The user", body = UserBody)),
)]
pub async fn show(id: String, catalog: Catalog) -> Result<Ready, Problem> {
    let id = UserId::parse(&id).map_err(no_user)?;
    reply::json(StatusCode::OK, &UserBody::new(&catalog.user(&id).await?))
}

/// Lists users, ordered by id.
#[utoipa::path(
    get, path = "/users", tag = "users", operation_id = "listUsers",
    params(
        ("limit" = Option<u64>, Query, description = "Users per page", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page", format = "cursor"),
    ),
    responses((status = 200, description = "A page of users", body = PageBody<UserBody>, headers(("Link" = String, description = "Link to the next page")))),
)]
pub async fn list(pairs: Pairs, catalog: Catalog) -> Result<Ready, Problem> {
    let query = UserQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let page = catalog.users(&query).await?;
    let items = page.items.iter().map(UserBody::new).collect();
    let mut response = reply::json(StatusCode::OK, &PageBody { items, next_cursor: page.next_cursor.clone() })?;
    if let Some(cursor) = &page.next_cursor {
        response.headers_mut().insert(header::LINK, reply::next_page(catalog.links(), "/users", &pairs, cursor)?);
    }
    Ok(response)
}

/// Creates a user.
///
/// With `If-None-Match: *`, an existing id returns 412 instead of 409.
#[utoipa::path(
    post, path = "/users", tag = "users", operation_id = "createUser", request_body = NewUserShape,
    params(("If-None-Match" = Option<String>, Header, description = "`*`: create the user only if no user has this id")),
    responses(
        (status = 201, description = "The created user", body = UserBody, headers(
            ("Location" = String, description = "URL of the user"),
            ("ETag" = String, description = "The entity tag of the new user"),
        )),
        (status = 409, description = "A user with this id exists", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create(body: Bytes, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let condition = etag::conditions(&headers).unwrap_or_default();
    condition.check_creation("a user")?;
    let new = extract::parsed(body.clone(), |json| Ok(NewUser::from_json(json)??)).await?;
    let once = idempotency::once(&headers, &context.principal, "/users", &body).await?;
    let created = catalog.create_user(new, once).await.map_err(|error| match error {
        Error::Conflict(detail) if condition.only_creates() => Error::Precondition(detail),
        other => other,
    })?;
    idempotency::reply_of(created, |user| {
        let response = reply::created(&UserBody::new(&user), catalog.links().user(&user.id))?;
        let tag = etag::of_bytes(response.body());
        reply::tagged(response, tag)
    })
}

fn no_user(message: String) -> Problem {
    Problem::not_found("user not found: the id is not a valid user id").with_error("id", message)
}
