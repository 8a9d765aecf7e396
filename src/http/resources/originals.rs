//! `/products/{id}/images/{image_id}/original`: returns the uploaded file unchanged, including camera metadata.
//!
//! Only the product's owner and administrators may read it. Caches must not store it.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use warp::{Filter, reply::Response};

use super::images;
use crate::{
    code::ErrorCode,
    domain::{ImageId, ProductId},
    http::{
        State,
        admission::Needs,
        endpoint::{Endpoint, Permission, handler},
        problem::{Problem, ProblemBody},
        request::{
            extract::{self, Context},
            path,
            principal::Principal,
        },
    },
};

/// Whether the server returns uploaded originals when authentication is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Originals {
    /// Only this machine can reach the server, so the client is the operator.
    Answered,
    /// Other machines can reach the server.
    #[default]
    Withheld,
}

const NEVER_STORED: HeaderValue = HeaderValue::from_static("private, no-store");

/// Headers that proxies add to forwarded requests.
const BY_PROXIES: [HeaderName; 3] = [header::FORWARDED, header::VIA, HeaderName::from_static("x-forwarded-for")];

/// Returns the endpoint of uploaded originals. It precedes that of presets; no preset is named `original`.
pub fn endpoints() -> Vec<Endpoint> {
    let show = Endpoint::new::<__path_show>(Permission::ReadOwnProduct, |services| {
        let ids = path::parameter().and(path::parameter()).and(warp::header::headers_cloned());
        handler(ids.and(extract::context()).and(extract::with(services.state)).then(show))
    });
    vec![show.works_on(Needs::Files)]
}

/// Returns the uploaded file of an image.
///
/// Only the product's owner and principals with the scope `admin` may read it. With authentication off, the server
/// returns it only if it listens on a loopback address, has no public URL, and no proxy forwarded the request.
#[utoipa::path(
    get, path = "/products/{id}/images/{image_id}/original", tag = "images", operation_id = "getOriginal",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("image_id" = ImageId, Path, description = "The image id"),
        ("Range" = Option<String>, Header, description = "A single byte range"),
    ),
    responses(
        (status = 200, description = "The uploaded file, unchanged", body = [u8], content_type = "image/*"),
        (status = 206, description = "The requested range", body = [u8], content_type = "image/*"),
        (status = 416, description = "The range is outside the file", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    id: ProductId,
    image: ImageId,
    request: HeaderMap,
    context: Context,
    state: State,
) -> Result<Response, Problem> {
    if matches!(context.principal, Principal::AuthenticationDisabled) {
        let is_passed_on = BY_PROXIES.iter().any(|name| request.contains_key(name));
        if is_passed_on || state.originals == Originals::Withheld {
            return Err(withheld());
        }
    }
    let key = state.catalog.original(id, image).await?;
    let found = images::answer(&key, &request, &context, &state.blobs, NEVER_STORED).await?;
    found.ok_or_else(|| Problem::not_found(format!("the uploaded file of image {image} is missing in storage")))
}

fn withheld() -> Problem {
    let detail = "uploaded originals are available only to the product's owner; this server cannot identify users, \
                  because authentication is off";
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
}
