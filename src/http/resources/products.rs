//! `/products` and `/products/{id}`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use warp::Filter;

use crate::{
    api::{BatchShape, NewProductShape, PageBody, ProductBody, ProductPatchShape},
    catalog::{BatchBody, Catalog, product_tag, products::batch},
    domain::{
        Invalid, NewProduct, Product, ProductId, ProductPatch, ProductQuery, ProductStatus, Scope, UserId,
        batch::products_from_json,
    },
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

/// Returns the endpoints of products.
pub fn endpoints() -> Vec<Endpoint> {
    const WRITE: Permission = Permission::Scope(Scope::ProductsWrite);
    vec![
        Endpoint::new::<__path_list>(Permission::ReadProducts, |services| {
            let query = extract::query().and(extract::context());
            handler(query.and(catalog(services)).then(list))
        })
        .works_on(Needs::List),
        // The body names the owner of a new product, so the handler checks it.
        Endpoint::new::<__path_create>(WRITE, |services| {
            let body = extract::json_body(services.body).and(warp::header::headers_cloned());
            handler(body.and(extract::context()).and(catalog(services)).then(create))
        }),
        Endpoint::new::<__path_show>(Permission::ReadProducts, |services| {
            let id = path::parameter().and(warp::header::headers_cloned());
            handler(id.and(extract::context()).and(catalog(services)).then(show))
        }),
        Endpoint::new::<__path_update>(Permission::OwnProduct, |services| {
            let body = path::parameter().and(extract::merge_patch(services.body));
            let rest = warp::header::headers_cloned().and(extract::context());
            handler(body.and(rest).and(catalog(services)).then(update))
        }),
        Endpoint::new::<__path_delete>(Permission::OwnProduct, |services| {
            let id = path::parameter().and(warp::header::headers_cloned());
            handler(id.and(catalog(services)).then(delete))
        }),
        Endpoint::new::<__path_create_batch>(WRITE, |services| {
            let body = extract::json_body(services.batch_body).and(warp::header::headers_cloned());
            handler(body.and(extract::context()).and(catalog(services)).then(create_batch))
        })
        .works_on(Needs::Batch),
    ]
}

/// Returns a product.
#[utoipa::path(
    get, path = "/products/{id}", tag = "products", operation_id = "getProduct",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("If-Match" = Option<String>, Header, description = "Return the product only if its entity tag is one of these"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags that the client has cached; a match returns 304"),
    ),
    responses(
        (status = 200, description = "The product", body = ProductBody, headers(
            ("ETag" = String, description = "A strong entity tag, `\"{edit}.{state}\"`: `edit` changes with every edit, `state` also with every change by a worker"),
            ("X-Cache" = String, description = "`hit` or `miss`"),
        )),
    ),
)]
pub async fn show(id: ProductId, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let (body, freshness) = catalog.product_body(id).await?;
    let body = catalog.shown_to(context.principal.reader(), id, body)?;
    Ok(reply::product(&body, freshness, &headers))
}

/// Lists products with filters, sorting and pagination.
#[utoipa::path(
    get, path = "/products", tag = "products", operation_id = "listProducts",
    params(
        ("user_id" = Option<UserId>, Query, description = "Only products of this user"),
        ("min_price" = Option<f64>, Query, description = "Minimum price, inclusive", minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001),
        ("max_price" = Option<f64>, Query, description = "Maximum price, inclusive", minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001),
        ("name" = Option<String>, Query, description = "Only products whose name contains this text; case and Unicode normalization are ignored", pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$"),
        ("q" = Option<String>, Query, description = "Full-text search in name and description; the last term matches as a prefix. Best match first, unless `sort` is set", max_length = 200, format = "search", pattern = r"[\p{L}\p{N}]"),
        ("status" = Option<ProductStatus>, Query, description = "Only products with this status"),
        ("sort" = Option<String>, Query, description = "Sort key; prefix `-` for descending order", pattern = "^-?(id|product_price|product_name|created_at)$"),
        ("limit" = Option<u64>, Query, description = "Products per page", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page", format = "cursor"),
    ),
    responses((status = 200, description = "A page of products", body = PageBody<ProductBody>, headers(("Link" = String, description = "Link to the next page")))),
)]
pub async fn list(pairs: Pairs, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let query = ProductQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let page = catalog.list(&query).await?;
    reply::build(page.items.iter().map(text_bytes).sum(), move || {
        let (links, reader) = (catalog.links(), context.principal.reader());
        let items = page.items.iter().map(|product| ProductBody::new(product, links).shown_to(reader)).collect();
        let mut response = reply::json(StatusCode::OK, &PageBody { items, next_cursor: page.next_cursor.clone() })?;
        if let Some(cursor) = &page.next_cursor {
            response.headers_mut().insert(header::LINK, reply::next_page(links, "/products", &pairs, cursor)?);
        }
        Ok(response)
    })
    .await
}

/// Returns the length of a product as JSON, about.
fn text_bytes(product: &Product) -> usize {
    const REST: usize = 300;
    const IMAGE: usize = 2_000;
    REST + product.product_description.len() + product.images.len() * IMAGE
}

/// Creates a product and queues its images for processing.
#[utoipa::path(
    post, path = "/products", tag = "products", operation_id = "createProduct", request_body = NewProductShape,
    params(("If-None-Match" = Option<String>, Header, description = "`*` always succeeds, since the product is new")),
    responses(
        (status = 201, description = "The created product", body = ProductBody, headers(
            ("Location" = String, description = "URL of the product"),
            ("ETag" = String, description = "The entity tag of the new product"),
        )),
        (status = 410, description = "An earlier request with this key created a product that has since been deleted", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create(body: Bytes, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    if let Some(condition) = etag::conditions(&headers) {
        condition.check_creation("a product")?;
    }
    let (policy, user) = (catalog.policy().clone(), context.principal.user().cloned());
    let parse = move |json: &[u8]| Ok(NewProduct::from_json_of(json, &policy, user.as_ref())??);
    let new = extract::parsed(body.clone(), parse).await?;
    let once = idempotency::once(&headers, &context.principal, "/products", &body).await?;
    context.principal.must_act_for(&new.user_id)?;
    let answer = catalog.create_one(new, once, Some(context.request_id.as_str()), batch::one).await?;
    let response = idempotency::reply(answer)?;
    let tag = product_tag(response.body())?;
    reply::tagged(response, tag)
}

/// Creates up to 1,000 products and returns a result for each.
///
/// Valid products are created even if others are invalid. The server stores a large batch in several parts; if the
/// database fails after the first part, the other products have the status 503. A repeated request with the same
/// `Idempotency-Key` creates only these.
#[utoipa::path(
    post, path = "/products:batch", tag = "products", operation_id = "createProducts", request_body = BatchShape,
    responses((status = 200, description = "One result per product, in request order", body = BatchBody)),
)]
pub async fn create_batch(
    body: Bytes,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let principal = &context.principal;
    let (policy, user) = (catalog.policy().clone(), principal.user().cloned());
    let parse = move |json: &[u8]| Ok(products_from_json(json, &policy, user.as_ref())??);
    let read = extract::parsed(body.clone(), parse).await?;
    let once = idempotency::once(&headers, principal, "/products:batch", &body).await?;
    let own = |new: NewProduct| match principal.may_act_for(&new.user_id) {
        true => Ok(new),
        false => Err(Invalid::field("user_id", "must be your own user id; other users require the scope `admin`")),
    };
    let read = read.into_iter().map(|item| item.and_then(own)).collect();
    let (news, refusals) = batch::split(read);
    let answer = catalog
        .create_batch(news, once, Some(context.request_id.as_str()), |links, stored| refusals.answer(links, stored))
        .await?;
    idempotency::reply(answer)
}

/// Updates a product by JSON merge patch (RFC 7396).
///
/// Images whose URL does not change are kept.
#[utoipa::path(
    patch, path = "/products/{id}", tag = "products", operation_id = "updateProduct",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("If-Match" = Option<String>, Header, description = "Update only if the `edit` part of the product's entity tag matches one of these; changes by workers are ignored"),
        ("If-None-Match" = Option<String>, Header, description = "Update only if the product's entity tag is none of these"),
    ),
    request_body(content(
        (ProductPatchShape = "application/merge-patch+json"),
        (ProductPatchShape = "application/json"),
    )),
    responses(
        (status = 200, description = "The updated product", body = ProductBody, headers(("ETag" = String, description = "The new entity tag"))),
    ),
)]
pub async fn update(
    id: ProductId,
    body: Bytes,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let patch = extract::parsed(body, |json| Ok(ProductPatch::from_json(json)?)).await?;
    let condition = etag::conditions(&headers);
    let updated = catalog.update(id, patch, condition, None, Some(context.request_id.as_str())).await?;
    reply::changed(updated.body)
}

/// Deletes a product and its images.
#[utoipa::path(
    delete, path = "/products/{id}", tag = "products", operation_id = "deleteProduct",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("If-Match" = Option<String>, Header, description = "Delete only if the `edit` part of the product's entity tag matches one of these"),
        ("If-None-Match" = Option<String>, Header, description = "Delete only if the product's entity tag is none of these"),
    ),
    responses(
        (status = 204, description = "The product was deleted"),
    ),
)]
pub async fn delete(id: ProductId, headers: HeaderMap, catalog: Catalog) -> Result<Ready, Problem> {
    catalog.delete_if(id, etag::conditions(&headers)).await?;
    Ok(reply::gone())
}
