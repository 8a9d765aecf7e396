//! `/products` and `/products/{id}`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use warp::{Filter, filters::BoxedFilter, reply::Response};

use super::{
    State, etag,
    extract::{self, BodyLimits, Context, Pairs},
    idempotency,
    problem::{Problem, ProblemBody},
    reply::{self, Ready},
    shapes::{BatchShape, NewProductShape, ProductPatchShape},
};
use crate::{
    catalog::{BatchBody, Catalog, PageBody, ProductBody, batch, product_tag},
    domain::{
        Invalid, NewProduct, ProductId, ProductPatch, ProductQuery, ProductStatus, UserId, batch::products_from_json,
    },
};

/// The routes of products.
pub fn routes(state: &State, limits: BodyLimits, batch_limits: BodyLimits) -> BoxedFilter<(Response,)> {
    let catalog = extract::with(&state.catalog);
    let one = warp::path!("products" / String)
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(extract::context())
        .and(catalog.clone())
        .then(show);
    let list = warp::path!("products")
        .and(warp::get())
        .and(extract::query())
        .and(extract::context())
        .and(catalog.clone())
        .then(list);
    let update = warp::path!("products" / String)
        .and(warp::patch())
        .and(extract::merge_patch(limits))
        .and(warp::header::headers_cloned())
        .and(extract::context())
        .and(catalog.clone())
        .then(update);
    let delete = warp::path!("products" / String)
        .and(warp::delete())
        .and(warp::header::headers_cloned())
        .and(catalog.clone())
        .then(delete);
    let create = warp::path!("products")
        .and(warp::post())
        .and(extract::json_body(limits))
        .and(warp::header::headers_cloned())
        .and(extract::context())
        .and(catalog.clone())
        .then(create);
    let batch = warp::path!("products:batch")
        .and(warp::post())
        .and(extract::json_body(batch_limits))
        .and(warp::header::headers_cloned())
        .and(extract::context())
        .and(catalog)
        .then(create_batch);
    extract::boxed(one)
        .or(extract::boxed(list))
        .unify()
        .or(extract::boxed(update))
        .unify()
        .or(extract::boxed(delete))
        .unify()
        .or(extract::boxed(create))
        .unify()
        .or(extract::boxed(batch))
        .unify()
        .boxed()
}

/// The id of a product as it stands in a path: digits and nothing else.
pub fn parse_id(text: &str) -> Option<ProductId> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A product.
#[utoipa::path(
    get, path = "/products/{id}", tag = "products", operation_id = "getProduct",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("If-Match" = Option<String>, Header, description = "Answer it only if it has one of these entity tags"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags of what the client has"),
    ),
    responses(
        (status = 200, description = "The product", body = ProductBody, headers(
            ("ETag" = String, description = "A strong entity tag, `\"{edit}.{state}\"`: `edit` stays while only workers change the product, `state` changes with every byte"),
            ("X-Cache" = String, description = "`hit` or `miss`"),
        )),
    ),
)]
pub async fn show(id: String, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let id = parse_id(&id).ok_or_else(no_number)?;
    let (body, freshness) = catalog.product_body(id).await?;
    let body = catalog.shown_to(context.caller.reader(), id, body)?;
    Ok(reply::product(&body, freshness, &headers))
}

/// Products by filter and order, page by page.
#[utoipa::path(
    get, path = "/products", tag = "products", operation_id = "listProducts",
    params(
        ("user_id" = Option<UserId>, Query, description = "Only this user's"),
        ("min_price" = Option<f64>, Query, description = "At least this price", minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001),
        ("max_price" = Option<f64>, Query, description = "At most this price", minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001),
        ("name" = Option<String>, Query, description = "Names that contain this, whatever the case and however accents are written", pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$"),
        ("q" = Option<String>, Query, description = "Words of the name and the description, the last one as the beginning of one; best match first unless `sort` says otherwise", max_length = 200, format = "search", pattern = r"[^\u0000-/:-@\[-\u0060{-\u007f]"),
        ("status" = Option<ProductStatus>, Query, description = "Only products of this status"),
        ("sort" = Option<String>, Query, description = "The order, a `-` before it for descending", pattern = "^-?(id|product_price|product_name|created_at)$"),
        ("limit" = Option<u64>, Query, description = "Products per page", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before", format = "cursor"),
    ),
    responses((status = 200, description = "A page", body = PageBody<ProductBody>, headers(("Link" = String, description = "The next page")))),
)]
pub async fn list(pairs: Pairs, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let query = ProductQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let page = catalog.list(&query).await?;
    let reader = context.caller.reader();
    let items = page.items.iter().map(|product| ProductBody::new(product, catalog.links()).shown_to(reader)).collect();
    let mut response = reply::json(StatusCode::OK, &PageBody { items, next_cursor: page.next_cursor.clone() })?;
    if let Some(cursor) = &page.next_cursor {
        response.headers_mut().insert(header::LINK, reply::next_page(catalog.links(), "/products", &pairs, cursor)?);
    }
    Ok(response)
}

/// Stores a product; its pictures are queued in the same transaction.
#[utoipa::path(
    post, path = "/products", tag = "products", operation_id = "createProduct", request_body = NewProductShape,
    params(("If-None-Match" = Option<String>, Header, description = "`*` holds always: the product is a new one")),
    responses(
        (status = 201, description = "The product", body = ProductBody, headers(
            ("Location" = String, description = "Where the product is"),
            ("ETag" = String, description = "The entity tag of the new product"),
        )),
        (status = 410, description = "A request with this key has created a product, which was deleted since", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn create(body: Bytes, headers: HeaderMap, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    if let Some(condition) = etag::conditions(&headers) {
        condition.check_creation("a product")?;
    }
    let once = idempotency::once(&headers, &context.caller, "/products", &body).await?;
    let (policy, user) = (catalog.policy().clone(), context.caller.user().cloned());
    let new = extract::parsed(body, move |json| Ok(NewProduct::from_json_of(json, &policy, user.as_ref())??)).await?;
    context.caller.must_act_for(&new.user_id)?;
    let answer = catalog.create_all(vec![new], once, Some(context.request_id.as_str()), batch::one).await?;
    let response = idempotency::reply(answer)?;
    let tag = product_tag(response.body())?;
    reply::tagged(response, tag)
}

/// Stores up to 1,000 products, each as far as it is right, and answers what became of each.
#[utoipa::path(
    post, path = "/products:batch", tag = "products", operation_id = "createProducts", request_body = BatchShape,
    responses((status = 200, description = "A result for each product, in order", body = BatchBody)),
)]
pub async fn create_batch(
    body: Bytes,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let once = idempotency::once(&headers, &context.caller, "/products:batch", &body).await?;
    let caller = &context.caller;
    let (policy, user) = (catalog.policy().clone(), caller.user().cloned());
    let read = extract::parsed(body, move |json| Ok(products_from_json(json, &policy, user.as_ref())??)).await?;
    let own = |new: NewProduct| match caller.may_act_for(&new.user_id) {
        true => Ok(new),
        false => Err(Invalid::field("user_id", "must be your own; another user's takes the scope `admin`")),
    };
    let read = read.into_iter().map(|item| item.and_then(own)).collect();
    let (news, refusals) = batch::split(read);
    let answer = catalog
        .create_all(news, once, Some(context.request_id.as_str()), |links, stored| refusals.answer(links, stored))
        .await?;
    idempotency::reply(answer)
}

/// Changes a product by a JSON merge patch (RFC 7396); pictures whose address stays are kept.
#[utoipa::path(
    patch, path = "/products/{id}", tag = "products", operation_id = "updateProduct",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("If-Match" = Option<String>, Header, description = "Change it only if it has one of these entity tags, as far as editors change it: a worker's progress does not count"),
        ("If-None-Match" = Option<String>, Header, description = "Change it only if it has none of these entity tags"),
    ),
    request_body(content(
        (ProductPatchShape = "application/merge-patch+json"),
        (ProductPatchShape = "application/json"),
    )),
    responses(
        (status = 200, description = "The product as it is now", body = ProductBody, headers(("ETag" = String, description = "Its new entity tag"))),
    ),
)]
pub async fn update(
    id: String,
    body: Bytes,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let id = parse_id(&id).ok_or_else(no_number)?;
    let patch = extract::parsed(body, |json| Ok(ProductPatch::from_json(json)?)).await?;
    let condition = etag::conditions(&headers);
    let updated = catalog.update(id, patch, condition, None, Some(context.request_id.as_str())).await?;
    reply::changed(updated.body)
}

/// Deletes a product with its pictures.
#[utoipa::path(
    delete, path = "/products/{id}", tag = "products", operation_id = "deleteProduct",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("If-Match" = Option<String>, Header, description = "Delete it only if it has one of these entity tags, as far as editors change it"),
        ("If-None-Match" = Option<String>, Header, description = "Delete it only if it has none of these entity tags"),
    ),
    responses(
        (status = 204, description = "It is gone"),
    ),
)]
pub async fn delete(id: String, headers: HeaderMap, catalog: Catalog) -> Result<Ready, Problem> {
    let id = parse_id(&id).ok_or_else(no_number)?;
    catalog.delete_if(id, etag::conditions(&headers)).await?;
    Ok(reply::gone())
}

pub(super) fn no_number() -> Problem {
    let message = format!("must be a whole number from 0 to {}", i64::MAX);
    Problem::not_found("there is no such product: its id is no number").with_error("id", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_digits() {
        assert_eq!(parse_id("12"), Some(ProductId(12)));
        assert_eq!(parse_id("9223372036854775807"), Some(ProductId(i64::MAX)));
        for wrong in ["", "+1", "-1", "1.0", " 1", "1e3", "0x1", "१", "9223372036854775808"] {
            assert_eq!(parse_id(wrong), None, "{wrong}");
        }
    }
}
