//! `/products/{id}/images` and what is below it: more pictures for a product, one fewer, one again.

use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use warp::{Filter, filters::BoxedFilter, reply::Response};

use super::{
    State,
    extract::{self, BodyLimits, Context},
    problem::Problem,
    products::{no_number, parse_id},
    reply::{self, Ready},
    shapes::{ImageFilesShape, MoreImagesShape},
    upload::{self, Chunks, Uploads},
};
use crate::{
    catalog::{Catalog, ImageBody},
    domain::{ImageId, ProductId, ProductPatch},
};

/// Pictures that were taken in.
#[derive(Serialize, ToSchema)]
#[schema(as = AddedImages)]
pub struct AddedBody<'a> {
    /// The new pictures in order.
    images: Vec<ImageBody<'a>>,
}

/// The routes of products' pictures; a file has at most `max_upload` bytes.
pub fn routes(state: &State, limits: BodyLimits, max_upload: u64) -> BoxedFilter<(Response,)> {
    let catalog = extract::with(&state.catalog);
    let add = warp::path!("products" / String / "images")
        .and(warp::post())
        .and(warp::header::headers_cloned())
        .and(extract::context())
        .and(upload::chunks())
        .and(extract::with(&(Uploads::new(max_upload), limits)))
        .and(catalog.clone())
        .then(add);
    let remove = warp::path!("products" / String / "images" / String)
        .and(warp::delete())
        .and(extract::context())
        .and(catalog.clone())
        .then(remove);
    let again = warp::path!("products" / String / "images" / String / "reprocess")
        .and(warp::post())
        .and(extract::context())
        .and(catalog)
        .then(reprocess);
    extract::boxed(add).or(extract::boxed(remove)).unify().or(extract::boxed(again)).unify().boxed()
}

/// Adds pictures behind the last one: files, streamed, or addresses. All of them or none.
#[utoipa::path(
    post, path = "/products/{id}/images", tag = "products", operation_id = "addImages",
    params(("id" = ProductId, Path, description = "The product's number")),
    request_body(content(
        (MoreImagesShape = "application/json"),
        (ImageFilesShape = "multipart/form-data"),
    )),
    responses((status = 202, description = "The new pictures, which are worked on from now on", body = AddedBody)),
)]
pub async fn add(
    id: String,
    headers: HeaderMap,
    context: Context,
    body: Chunks,
    (uploads, limits): (Uploads, BodyLimits),
    catalog: Catalog,
) -> Result<Ready, Problem> {
    const KINDS: [&str; 2] = ["application/json", "multipart/form-data"];
    let id = parse_id(&id).ok_or_else(no_number)?;
    // Before anything is read for nothing.
    catalog.product_body(id).await?;
    let request_id = Some(context.request_id.as_str());
    let updated = if upload::is_multipart(&headers) {
        let files = uploads.receive(&headers, body, &context.turn, &catalog).await?;
        catalog.add_uploads(id, files, request_id).await?
    } else {
        let json = extract::read_json(&KINDS, &headers, body, limits, &context.turn).await?;
        let patch = extract::parsed(json, |json| Ok(ProductPatch::more_images_from_json(json)?)).await?;
        catalog.update(id, patch, None, request_id).await?
    };
    let added = updated.product.images.iter().filter(|image| updated.added.contains(&image.id));
    let images = added.map(|image| ImageBody::new(id, image, catalog.links())).collect();
    reply::json(StatusCode::ACCEPTED, &AddedBody { images })
}

/// Removes a picture; those behind it move up.
#[utoipa::path(
    delete, path = "/products/{id}/images/{image_id}", tag = "products", operation_id = "deleteImage",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("image_id" = ImageId, Path, description = "The picture's number"),
    ),
    responses((status = 204, description = "It is gone")),
)]
pub async fn remove(id: String, image_id: String, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let (id, image) = numbers(&id, &image_id)?;
    catalog.remove_image(id, image, Some(context.request_id.as_str())).await?;
    Ok(reply::gone())
}

/// Works on a picture again; one that is on its way already goes on.
#[utoipa::path(
    post, path = "/products/{id}/images/{image_id}/reprocess", tag = "products", operation_id = "reprocessImage",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("image_id" = ImageId, Path, description = "The picture's number"),
    ),
    responses((status = 202, description = "The picture", body = ImageBody)),
)]
pub async fn reprocess(id: String, image_id: String, context: Context, catalog: Catalog) -> Result<Ready, Problem> {
    let (id, image) = numbers(&id, &image_id)?;
    let product = catalog.reprocess_image(id, image, Some(context.request_id.as_str())).await?;
    let image = product.images.iter().find(|candidate| candidate.id == image);
    let image = image.ok_or_else(|| Problem::not_found("there is no such picture"))?;
    reply::json(StatusCode::ACCEPTED, &ImageBody::new(id, image, catalog.links()))
}

fn numbers(id: &str, image_id: &str) -> Result<(ProductId, ImageId), Problem> {
    let id = parse_id(id).ok_or_else(no_number)?;
    let image =
        parse_id(image_id).ok_or_else(|| Problem::not_found("there is no such picture: its id is no number"))?;
    Ok((id, ImageId(image.0)))
}
