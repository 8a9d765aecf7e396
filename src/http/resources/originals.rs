//! `/products/{id}/images/{image_id}/original`: the file that was uploaded, byte for byte, with all that a camera wrote into
//! it. It is for the user of its product and for administrators; no cache keeps it.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use warp::{Filter, filters::BoxedFilter, reply::Response};

use super::{images, pictures, products};
use crate::{
    code::ErrorCode,
    domain::{ImageId, ProductId},
    http::{
        State,
        problem::{Problem, ProblemBody},
        request::{
            caller::Caller,
            extract::{self, Context},
        },
    },
};

/// Whether uploaded originals are answered where authentication is off, and so to whoever reaches the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Originals {
    /// Only this machine reaches the server, so the client is the operator.
    Answered,
    /// Others may reach the server.
    #[default]
    Withheld,
}

const NEVER_STORED: HeaderValue = HeaderValue::from_static("private, no-store");

/// What proxies write into the requests that they pass on.
const BY_PROXIES: [HeaderName; 3] = [header::FORWARDED, header::VIA, HeaderName::from_static("x-forwarded-for")];

/// The route of uploaded originals. It comes before that of presets, none of which is called `original`.
pub fn routes(state: &State) -> BoxedFilter<(Response,)> {
    let path = warp::path!("products" / String / "images" / String / "original").and(warp::get());
    let parts = path.and(warp::header::headers_cloned()).and(extract::context()).and(extract::with(state));
    extract::boxed(parts.then(show))
}

/// The file that was uploaded as this image: for the product's user, and with the scope `admin`.
///
/// Without authentication it is answered only by a server that listens on this machine alone and has no public URL, and to no
/// request that a proxy passed on.
#[utoipa::path(
    get, path = "/products/{id}/images/{image_id}/original", tag = "pictures", operation_id = "getOriginal",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("image_id" = ImageId, Path, description = "The image's number"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "The file, byte for byte", body = [u8], content_type = "image/*"),
        (status = 206, description = "A part of it", body = [u8], content_type = "image/*"),
        (status = 416, description = "It has no byte in the range", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    id: String,
    image: String,
    request: HeaderMap,
    context: Context,
    state: State,
) -> Result<Response, Problem> {
    let id = products::parse_id(&id).ok_or_else(products::no_number)?;
    let image = pictures::parse_image(&image)?;
    if matches!(context.caller, Caller::Anyone) {
        let is_passed_on = BY_PROXIES.iter().any(|name| request.contains_key(name));
        if is_passed_on || state.originals == Originals::Withheld {
            return Err(withheld());
        }
    }
    let key = state.catalog.original(id, image).await?;
    let found = images::answer(&key, &request, &context, &state.blobs, NEVER_STORED).await?;
    found.ok_or_else(|| Problem::not_found(format!("the uploaded file of image {image} is not in the store")))
}

fn withheld() -> Problem {
    let detail = "an uploaded original is answered to the user of its product; this server cannot tell users apart, because \
                  authentication is off";
    Problem::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
}
