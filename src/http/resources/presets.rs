//! Image delivery: `/products/{id}/images/{image_id}/{preset}` with format negotiation, and `/resize/…` for any size by
//! signed URL. Bytes are streamed from storage.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::{Filter, Reply as _, reply::Response};

use super::images;
use crate::{
    blobs::BlobKey,
    catalog::ImageView,
    code::ErrorCode,
    domain::{ImageId, ImageStatus, ProductId},
    http::{
        State,
        admission::Needs,
        endpoint::{Endpoint, Permission, handler},
        headers::negotiate,
        problem::{Problem, ProblemBody},
        request::{
            extract::{self, Context},
            path,
        },
    },
    imaging::{self, OutputFormat},
    resize::{Error as ResizeError, Options as ResizeOptions, Resizer, UrlKeys},
};

/// Settings and services for image delivery.
#[derive(Clone, Debug)]
pub struct ImageDelivery {
    /// Makes variants on demand.
    pub resizer: Resizer,
    /// Keys that sign resize URLs; without keys, `/resize` is disabled.
    pub keys: Option<UrlKeys>,
    /// The response for an image that is not processed yet.
    pub placeholder: Placeholder,
}

/// The response for an image that is not processed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placeholder {
    /// 503 with `Retry-After`.
    #[default]
    None,
    /// The image's ThumbHash as a tiny PNG, if already known.
    Thumbhash,
}

impl Placeholder {
    /// Returns the value's name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Thumbhash => "thumbhash",
        }
    }

    /// Parses the value's name in settings.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Thumbhash].into_iter().find(|placeholder| placeholder.as_str() == word)
    }
}

/// `Cache-Control` of public images: reprocessing may change the content of the URL.
const FOR_A_MINUTE: HeaderValue = HeaderValue::from_static("public, max-age=60, stale-while-revalidate=600");
/// `Cache-Control` for authenticated clients: shared caches must not store the response.
const FOR_A_MINUTE_ALONE: HeaderValue = HeaderValue::from_static("private, max-age=60, stale-while-revalidate=600");
const SECONDS_UNTIL_READY: HeaderValue = HeaderValue::from_static("2");

/// Returns the endpoints of presets and of resizing on demand.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        // The ids in the path are sequential, so a client could enumerate them.
        Endpoint::new::<__path_preset>(Permission::ReadImages, |services| {
            let ids = path::parameter().and(path::parameter()).and(path::text("preset"));
            let request = warp::header::headers_cloned().and(extract::context());
            handler(ids.and(request).and(extract::with(services.state)).then(preset))
        })
        .works_on(Needs::Files),
        // The URL is signed, so a client cannot guess it.
        Endpoint::new::<__path_resize>(Permission::Nothing, |services| {
            let signed = path::text("signature").and(path::text("options")).and(path::text("image_id"));
            let request = warp::header::headers_cloned().and(extract::context());
            handler(signed.and(request).and(extract::with(services.state)).then(resize))
        })
        .works_on(Needs::Files),
    ]
}

/// Returns an image's rendition for a preset.
///
/// The server chooses the best format that the client accepts.
#[utoipa::path(
    get, path = "/products/{id}/images/{image_id}/{preset}", tag = "images", operation_id = "getPreset",
    params(
        ("id" = ProductId, Path, description = "The product id"),
        ("image_id" = ImageId, Path, description = "The image id"),
        ("preset" = String, Path, description = "The preset name, such as `large`"),
        ("Accept" = Option<String>, Header, description = "Media types that the client accepts"),
    ),
    responses(
        (status = 200, description = "The image", body = [u8], content_type = "image/*"),
        (status = 206, description = "The requested range", body = [u8], content_type = "image/*"),
        (status = 406, description = "The client accepts no format of the preset", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The range is outside the image file", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn preset(
    id: ProductId,
    image: ImageId,
    preset: String,
    request: HeaderMap,
    context: Context,
    state: State,
) -> Result<Response, Problem> {
    let image = state.catalog.image(id, image).await?;
    let forms: Vec<_> = image.forms.iter().filter(|form| form.preset == preset).map(|form| &form.key).collect();
    if forms.is_empty() {
        return missing(&image, &preset, &state);
    }
    let key = best(forms, &request)?;
    let caching = if context.principal.is_known() { FOR_A_MINUTE_ALONE } else { FOR_A_MINUTE };
    let found = images::answer(key, &request, &context, &state.blobs, caching).await?;
    found.map(varying).ok_or_else(|| Problem::not_found(format!("a file of image {} is missing in storage", image.id)))
}

/// Returns an image in any size, by a signed URL.
///
/// `options` is a list such as `w=300,h=200,fit=cover`: `w` and `h` (pixels, 1 to 4096, at least one of them), `fit`
/// (`contain`, `cover`, `fill`), `focus` (with `cover`: `center`, an edge or corner, or percentages such as `30x70`),
/// `dpr` (1 to 4), `format` (`auto`, `jpeg`, `webp`, `webp-lossless`, `png`, `avif`) and `quality` (1 to 100). The
/// signature is the HMAC-SHA256 of `{options}/{image_id}` in unpadded base64url. Images are never enlarged. The server
/// makes a variant on the first request and stores it.
#[utoipa::path(
    get, path = "/resize/{signature}/{options}/{image_id}", tag = "images", operation_id = "resizeImage",
    params(
        ("signature" = String, Path, description = "The URL signature"),
        ("options" = String, Path, description = "The resize options"),
        ("image_id" = ImageId, Path, description = "The image id"),
        ("Accept" = Option<String>, Header, description = "Media types that the client accepts"),
    ),
    responses(
        (status = 200, description = "The image", body = [u8], content_type = "image/*"),
        (status = 206, description = "The requested range", body = [u8], content_type = "image/*"),
        (status = 403, description = "The signature is invalid, or the server has no signing key", body = ProblemBody, content_type = "application/problem+json"),
        (status = 406, description = "The client accepts no available format", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The range is outside the image file", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The options are invalid, or the image cannot be decoded", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn resize(
    signature: String,
    options: String,
    signed: String,
    request: HeaderMap,
    context: Context,
    state: State,
) -> Result<Response, Problem> {
    let refused = |detail: &'static str| Problem::new(StatusCode::FORBIDDEN, ErrorCode::SignatureRefused, detail);
    let keys = state.images.keys.as_ref();
    let keys = keys.ok_or_else(|| refused("resizing is disabled: the server has no URL signing key"))?;
    // The signature covers the percent-decoded segments, because clients may escape commas and equals signs.
    if !keys.verify(&signature, &options, &signed) {
        return Err(refused("the signature does not match the options and the image id"));
    }
    let image: ImageId = path::number(&signed)?;
    let options = ResizeOptions::parse(&options)
        .map_err(|message| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Validation, message))?;
    let format = options.format.map_or_else(|| automatic(&request), Ok)?;
    for last in [false, true] {
        let key = state.images.resizer.form(image, &options, format).await.map_err(|error| not_made(&error))?;
        match images::answer(&key, &request, &context, &state.blobs, FOR_A_MINUTE).await? {
            Some(response) if options.format.is_none() => return Ok(varying(response)),
            Some(response) => return Ok(response),
            // The variant was evicted from storage after the resizer remembered it.
            None if !last => state.images.resizer.discard(image, &options, format),
            None => {}
        }
    }
    Err(Problem::internal("storage does not have a variant that was just made"))
}

/// Returns the rendition in the client's preferred format.
fn best<'a>(mut forms: Vec<&'a BlobKey>, request: &HeaderMap) -> Result<&'a BlobKey, Problem> {
    forms.sort_by_key(|key| newest_first(key.media_type()));
    let kinds: Vec<_> = forms.iter().map(|key| key.media_type()).collect();
    negotiate::media_type(request, &kinds, is_safe).map(|place| forms[place]).ok_or_else(|| not_acceptable(&kinds))
}

fn automatic(request: &HeaderMap) -> Result<OutputFormat, Problem> {
    let known = [OutputFormat::Avif, OutputFormat::Webp, OutputFormat::Jpeg];
    let formats: Vec<_> = known.into_iter().filter(|format| format.is_built_in()).collect();
    let kinds: Vec<_> = formats.iter().map(|format| format.media_type()).collect();
    negotiate::media_type(request, &kinds, is_safe).map(|place| formats[place]).ok_or_else(|| not_acceptable(&kinds))
}

fn newest_first(kind: &str) -> usize {
    ["image/avif", "image/webp"].iter().position(|newer| *newer == kind).unwrap_or(usize::MAX)
}

/// Whether all image viewers support this media type.
fn is_safe(kind: &str) -> bool {
    matches!(kind, "image/jpeg" | "image/png" | "image/gif")
}

fn varying(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Returns the response for a rendition that does not exist.
fn missing(image: &ImageView, preset: &str, state: &State) -> Result<Response, Problem> {
    let known = state.catalog.presets().iter().any(|known| known.name == preset);
    if !known {
        return Err(Problem::not_found(format!("preset {preset:?} not found")));
    }
    match image.status {
        ImageStatus::Failed => {
            Err(Problem::not_found(format!("image {} failed; its `error` has the reason", image.id)))
        }
        ImageStatus::Ready => {
            Err(Problem::not_found(format!("image {} has no rendition for preset {preset}; reprocess it", image.id)))
        }
        ImageStatus::Pending | ImageStatus::Processing => {
            let hash = image.thumbhash.as_deref().filter(|_| state.images.placeholder == Placeholder::Thumbhash);
            hash.and_then(imaging::preview).map_or_else(|| Err(not_yet()), |png| Ok(placeholder(png)))
        }
    }
}

fn placeholder(png: Vec<u8>) -> Response {
    let mut response = png.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::RETRY_AFTER, SECONDS_UNTIL_READY);
    images::locked_in(headers);
    response
}

fn not_yet() -> Problem {
    let detail = "the image is not processed yet; retry after `Retry-After`";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::NotReadyYet, detail)
        .with_header(header::RETRY_AFTER, SECONDS_UNTIL_READY)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

fn not_acceptable(kinds: &[&str]) -> Problem {
    let detail = format!("the image is available as {}; `Accept` allows none of them", kinds.join(", "));
    Problem::new(StatusCode::NOT_ACCEPTABLE, ErrorCode::NotAcceptable, detail)
}

fn not_made(error: &Arc<ResizeError>) -> Problem {
    match &**error {
        ResizeError::Catalog(error) => error.clone().into(),
        ResizeError::Pending => not_yet(),
        ResizeError::Nothing => Problem::not_found(error.to_string()),
        ResizeError::Image { code, message } => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, *code, message.clone()),
        ResizeError::Storage(storage) if storage.is_transient() => {
            Problem::unavailable(storage.code(), Arc::clone(error))
        }
        ResizeError::Overloaded => Problem::overloaded(Arc::clone(error)),
        ResizeError::Storage(_) | ResizeError::Broken(_) => Problem::internal(Arc::clone(error)),
    }
}
