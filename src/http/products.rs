//! `/products` and `/products/{id}`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use warp::{Filter, filters::BoxedFilter, reply::Response};

use super::{
    State,
    extract::{self, BodyLimits, Context, Pairs},
    problem::Problem,
    reply::{self, Ready},
};
use crate::{
    catalog::{Catalog, PageBody, ProductBody},
    domain::{FieldError, NewProduct, ProductId, ProductQuery},
};

/// The routes of products.
pub fn routes(state: &State, limits: BodyLimits) -> BoxedFilter<(Response,)> {
    let catalog = extract::with(&state.catalog);
    let one = warp::path!("products" / String)
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(catalog.clone())
        .then(show);
    let list = warp::path!("products").and(warp::get()).and(extract::query()).and(catalog.clone()).then(list);
    let delete = warp::path!("products" / String).and(warp::delete()).and(catalog.clone()).then(delete);
    let create = warp::path!("products")
        .and(warp::post())
        .and(extract::json_body(limits))
        .and(extract::context())
        .and(catalog)
        .then(create);
    extract::boxed(one)
        .or(extract::boxed(list))
        .unify()
        .or(extract::boxed(delete))
        .unify()
        .or(extract::boxed(create))
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

async fn show(id: String, headers: HeaderMap, catalog: Catalog) -> Result<Ready, Problem> {
    let id = parse_id(&id).ok_or_else(no_number)?;
    let (body, freshness) = catalog.product_body(id).await?;
    Ok(reply::product(&body, freshness, &headers))
}

async fn list(pairs: Pairs, catalog: Catalog) -> Result<Ready, Problem> {
    let query = ProductQuery::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let page = catalog.list(&query).await?;
    let items = page.items.iter().map(|product| ProductBody::new(product, catalog.links())).collect();
    let mut response = reply::json(StatusCode::OK, &PageBody { items, next_cursor: page.next_cursor.clone() })?;
    if let Some(cursor) = &page.next_cursor {
        response.headers_mut().insert(header::LINK, reply::next_page(catalog.links(), "/products", &pairs, cursor)?);
    }
    Ok(response)
}

async fn create(body: Bytes, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let new = NewProduct::from_json_of(&body, catalog.policy(), context.caller.user())??;
    context.caller.must_act_for(&new.user_id)?;
    let product = catalog.create(new, Some(context.request_id.as_str())).await?;
    reply::created(&ProductBody::new(&product, catalog.links()), catalog.links().product(product.id))
}

async fn delete(id: String, catalog: Catalog) -> Result<Ready, Problem> {
    let id = parse_id(&id).ok_or_else(no_number)?;
    if catalog.delete(&[id]).await?.is_empty() {
        return Err(Problem::not_found(format!("there is no product {id}")));
    }
    Ok(reply::gone())
}

fn no_number() -> Problem {
    let error = FieldError { field: "id".into(), message: format!("must be a whole number from 0 to {}", i64::MAX) };
    Problem::not_found("there is no such product: its id is no number").with_errors(vec![error])
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
