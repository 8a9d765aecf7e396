//! `/products/{id}/images` and below: adds, removes and reprocesses images.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;

use crate::{
    api::{ImageBody, ImageFilesShape, MoreImagesShape},
    catalog::{Catalog, Precondition},
    domain::{ImageId, ProductId, ProductPatch},
    http::{
        endpoint::{Endpoint, Kind, Permission, catalog, handler},
        headers::etag,
        problem::Problem,
        reply::{self, Ready},
        request::{
            extract::{self, BodyLimits, Context},
            idempotency, path,
            upload::{self, Chunks, Uploads},
        },
    },
};

/// The images that a request added.
#[derive(Serialize, ToSchema)]
#[schema(as = AddedImages)]
pub struct AddedBody<'a> {
    /// The added images in request order.
    images: Vec<ImageBody<'a>>,
}

/// Returns the endpoints of products' images.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new::<__path_add>(Permission::OwnProduct, |services| {
            let request = path::parameter().and(warp::header::headers_cloned()).and(extract::context());
            let limits = extract::with(&(Uploads::new(services.max_upload), services.body));
            handler(request.and(upload::chunks()).and(limits).and(catalog(services)).then(add))
        })
        .of_kind(Kind::Upload),
        Endpoint::new::<__path_remove>(Permission::OwnProduct, |services| {
            let ids = path::parameter().and(path::parameter()).and(warp::header::headers_cloned());
            handler(ids.and(extract::context()).and(catalog(services)).then(remove))
        }),
        Endpoint::new::<__path_reprocess>(Permission::OwnProduct, |services| {
            let ids = path::parameter().and(path::parameter()).and(warp::header::headers_cloned());
            handler(ids.and(extract::context()).and(catalog(services)).then(reprocess))
        }),
    ]
}

/// Appends images to a product, as uploaded files or as URLs.
///
/// The request adds all images or none.
#[utoipa::path(
    post, path = "/products/{id}/images", tag = "products", operation_id = "addImages",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("If-Match" = Option<String>, Header, description = "Proceed only if the `edit` part of the product's entity tag matches one of these"),
    ),
    request_body(content(
        (MoreImagesShape = "application/json"),
        (ImageFilesShape = "multipart/form-data"),
    )),
    responses(
        (status = 202, description = "The added images, queued for processing", body = AddedBody, headers(("ETag" = String, description = "The product's new entity tag"))),
    ),
)]
pub async fn add(
    id: ProductId,
    headers: HeaderMap,
    context: Context,
    body: Chunks,
    (uploads, limits): (Uploads, BodyLimits),
    catalog: Catalog,
) -> Result<Ready, Problem> {
    const KINDS: [&str; 2] = ["application/json", "multipart/form-data"];
    let condition = etag::conditions(&headers);
    check_before(id, condition.as_ref().filter(|_| !idempotency::has_key(&headers)), &catalog).await?;
    let (path, request_id) = (format!("/products/{id}/images"), Some(context.request_id.as_str()));
    let updated = if upload::is_multipart(&headers) {
        let files = uploads.receive(&headers, body, &context.admission, &catalog).await?;
        // A file's key contains the digest of its bytes.
        let digests = files.keys().collect::<Vec<_>>().join("\n").into();
        let once = idempotency::once(&headers, &context.principal, &path, &digests).await?;
        catalog.add_uploads(id, files, condition, once, request_id).await?
    } else {
        let json = extract::read_json(&KINDS, &headers, body, limits, &context.admission).await?;
        let patch = extract::parsed(json.clone(), |json| Ok(ProductPatch::more_images_from_json(json)?)).await?;
        let once = idempotency::once(&headers, &context.principal, &path, &json).await?;
        catalog.update(id, patch, condition, once, request_id).await?
    };
    let added = updated.product.images.iter().filter(|image| updated.added.contains(&image.id));
    let images = added.map(|image| ImageBody::new(id, image, catalog.links())).collect();
    let response = reply::json(StatusCode::ACCEPTED, &AddedBody { images })?;
    Ok(idempotency::marked(reply::tagged(response, updated.body.etag)?, updated.replayed))
}

/// Checks the product and the precondition before the body is read.
///
/// The caller passes no condition for a request with an idempotency key: a replay must succeed even if the condition
/// held only at the first execution.
async fn check_before(id: ProductId, condition: Option<&Precondition>, catalog: &Catalog) -> Result<(), Problem> {
    let (body, _) = catalog.product_body(id).await?;
    Ok(condition.map_or(Ok(()), |condition| body.check(condition, id))?)
}

/// Removes an image from a product.
///
/// The following images move up one position.
#[utoipa::path(
    delete, path = "/products/{id}/images/{image_id}", tag = "products", operation_id = "deleteImage",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("image_id" = ImageId, Path, description = "The image id"),
        ("If-Match" = Option<String>, Header, description = "Proceed only if the `edit` part of the product's entity tag matches one of these"),
    ),
    responses(
        (status = 204, description = "The image was removed", headers(("ETag" = String, description = "The product's new entity tag"))),
    ),
)]
pub async fn remove(
    id: ProductId,
    image: ImageId,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let (condition, request_id) = (etag::conditions(&headers), context.request_id.as_str());
    let updated = catalog.remove_image(id, image, condition, Some(request_id)).await?;
    reply::tagged(reply::gone(), updated.body.etag)
}

/// Reprocesses an image.
///
/// An image that is already being processed is not restarted.
#[utoipa::path(
    post, path = "/products/{id}/images/{image_id}/reprocess", tag = "products", operation_id = "reprocessImage",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("image_id" = ImageId, Path, description = "The image id"),
        ("If-Match" = Option<String>, Header, description = "Proceed only if the `edit` part of the product's entity tag matches one of these"),
    ),
    responses(
        (status = 202, description = "The image, queued for processing", body = ImageBody, headers(("ETag" = String, description = "The product's new entity tag"))),
    ),
)]
pub async fn reprocess(
    id: ProductId,
    image: ImageId,
    headers: HeaderMap,
    context: Context,
    catalog: Catalog,
) -> Result<Ready, Problem> {
    let path = format!("/products/{id}/images/{image}/reprocess");
    let once = idempotency::once(&headers, &context.principal, &path, &Bytes::new()).await?;
    let (condition, request_id) = (etag::conditions(&headers), context.request_id.as_str());
    let updated = catalog.reprocess_image(id, image, condition, once, Some(request_id)).await?;
    let image = updated.product.images.iter().find(|candidate| candidate.id == image);
    let image = image.ok_or_else(|| Problem::not_found(format!("image not found in product {id}")))?;
    let response = reply::json(StatusCode::ACCEPTED, &ImageBody::new(id, image, catalog.links()))?;
    Ok(idempotency::marked(reply::tagged(response, updated.body.etag)?, updated.replayed))
}
