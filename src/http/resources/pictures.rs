//! Pictures by what they are wanted for: `/products/{id}/images/{image_id}/{preset}` in the format that a client likes best,
//! and `/resize/…`, any size by a signed address. Bytes are streamed from the store.

use std::{str::FromStr, sync::Arc};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::{Filter, Reply as _, filters::BoxedFilter, reply::Response};

use super::{images, products};
use crate::{
    blobs::BlobKey,
    catalog::Picture,
    code::ErrorCode,
    domain::{ImageId, ImageStatus, ProductId},
    http::{
        State,
        headers::negotiate,
        problem::{Problem, ProblemBody},
        request::extract::{self, Context},
    },
    imaging::{self, OutputFormat},
    resize::{Error as ResizeError, Options as ResizeOptions, Resizer, UrlKeys},
};

/// How pictures are handed out.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// Makes forms on demand.
    pub resizer: Resizer,
    /// What addresses are signed with; without keys nothing is made on demand.
    pub keys: Option<UrlKeys>,
    /// What stands in the place of a picture that is on its way.
    pub placeholder: Placeholder,
}

/// What stands in the place of a picture that is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placeholder {
    /// Nothing: 503 with `Retry-After`.
    #[default]
    None,
    /// Its ThumbHash as a tiny PNG, where it is known from a run before.
    Thumbhash,
}

impl Placeholder {
    /// The word in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Thumbhash => "thumbhash",
        }
    }

    /// The placeholder that is written `word` in settings.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Thumbhash].into_iter().find(|placeholder| placeholder.as_str() == word)
    }
}

/// The address may show another picture after a run, or another format to another client.
const FOR_A_MINUTE: HeaderValue = HeaderValue::from_static("public, max-age=60, stale-while-revalidate=600");
/// The same for who had to show a token: no cache between may hand it on to others.
const FOR_A_MINUTE_ALONE: HeaderValue = HeaderValue::from_static("private, max-age=60, stale-while-revalidate=600");
const SECONDS_UNTIL_READY: HeaderValue = HeaderValue::from_static("2");

/// The routes of pictures by their purpose.
pub fn routes(state: &State) -> BoxedFilter<(Response,)> {
    let parts = warp::header::headers_cloned().and(extract::context()).and(extract::with(state));
    let preset = warp::path!("products" / String / "images" / String / String).and(warp::get()).map(three);
    let preset = preset.and(parts.clone()).then(self::preset);
    let resize = warp::path!("resize" / String / String / String).and(warp::get()).map(three);
    let resize = resize.and(parts).then(self::resize);
    extract::boxed(preset).or(extract::boxed(resize)).unify().boxed()
}

/// The three variable parts of a path.
type Three = (String, String, String);

fn three(first: String, second: String, third: String) -> Three {
    (first, second, third)
}

/// A picture by a preset, in the best of its formats that the client accepts.
#[utoipa::path(
    get, path = "/products/{id}/images/{image_id}/{preset}", tag = "pictures", operation_id = "getPreset",
    params(
        ("id" = ProductId, Path, description = "The product's number"),
        ("image_id" = ImageId, Path, description = "The picture's number"),
        ("preset" = String, Path, description = "The preset's name, such as `large`"),
        ("Accept" = Option<String>, Header, description = "The media types that the client reads"),
    ),
    responses(
        (status = 200, description = "The picture", body = [u8], content_type = "image/*"),
        (status = 206, description = "A part of it", body = [u8], content_type = "image/*"),
        (status = 406, description = "The preset has no format that the client accepts", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "It has no byte in the range", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn preset(
    (id, image, preset): Three,
    request: HeaderMap,
    context: Context,
    state: State,
) -> Result<Response, Problem> {
    let id = products::parse_id(&id).ok_or_else(|| no_number("product"))?;
    let picture = state.catalog.picture(id, parse_image(&image)?).await?;
    let preset = extract::decode_segment(&preset)?;
    let forms: Vec<_> = picture.forms.iter().filter(|form| form.preset == preset).map(|form| &form.key).collect();
    if forms.is_empty() {
        return missing(&picture, &preset, &state);
    }
    let key = best(forms, &request)?;
    let caching = if context.caller.is_known() { FOR_A_MINUTE_ALONE } else { FOR_A_MINUTE };
    let found = images::answer(key, &request, &context, &state.blobs, caching).await?;
    found.map(varying).ok_or_else(|| Problem::not_found("the picture's file is not in the store"))
}

/// A picture in any size, by an address that is signed with a key of this installation.
///
/// `options` are `w` and `h` (pixels, 1 to 4096, one of them at least), `fit` (`contain`, `cover`, `fill`), `focus` (with
/// `cover`: `center`, an edge or corner, or hundredths such as `30x70`), `dpr` (1 to 4), `format` (`auto`, `jpeg`, `webp`,
/// `webp-lossless`, `png`, `avif`) and `quality` (1 to 100), as `w=300,h=200,fit=cover`. The signature is the HMAC-SHA256 of
/// `{options}/{image_id}` in base64 for URLs without padding. A picture is never enlarged; a form is made once and kept.
#[utoipa::path(
    get, path = "/resize/{signature}/{options}/{image_id}", tag = "pictures", operation_id = "resizeImage",
    params(
        ("signature" = String, Path, description = "The signature"),
        ("options" = String, Path, description = "What is asked for"),
        ("image_id" = ImageId, Path, description = "The picture's number"),
        ("Accept" = Option<String>, Header, description = "The media types that the client reads"),
    ),
    responses(
        (status = 200, description = "The picture", body = [u8], content_type = "image/*"),
        (status = 206, description = "A part of it", body = [u8], content_type = "image/*"),
        (status = 403, description = "The signature is not right", body = ProblemBody, content_type = "application/problem+json"),
        (status = 406, description = "The client accepts no format that is made", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "It has no byte in the range", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The options are not allowed, or the picture cannot be decoded", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn resize(
    (signature, options, image): Three,
    request: HeaderMap,
    context: Context,
    state: State,
) -> Result<Response, Problem> {
    let refused = |detail: &'static str| Problem::new(StatusCode::FORBIDDEN, ErrorCode::SignatureRefused, detail);
    let keys = state.pictures.keys.as_ref();
    let keys = keys.ok_or_else(|| refused("nothing is resized on demand here: no key for addresses is set"))?;
    // What was signed is what stands in the address, with its escapes undone: commas and equals signs may be escaped.
    let options = extract::decode_segment(&options)?;
    if !keys.verify(&signature, &options, &image) {
        return Err(refused("the signature is not one for these options and this picture"));
    }
    let image = parse_image(&image)?;
    let options = ResizeOptions::parse(&options)
        .map_err(|message| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Validation, message))?;
    let format = options.format.map_or_else(|| automatic(&request), Ok)?;
    for last in [false, true] {
        let key = state.pictures.resizer.form(image, &options, format).await.map_err(|error| not_made(&error))?;
        match images::answer(&key, &request, &context, &state.blobs, FOR_A_MINUTE).await? {
            Some(response) if options.format.is_none() => return Ok(varying(response)),
            Some(response) => return Ok(response),
            // It was crowded out and removed since it was remembered.
            None if !last => state.pictures.resizer.forget(image, &options, format),
            None => {}
        }
    }
    Err(Problem::internal("a form that was just made is not in the store"))
}

/// The form that the client likes best.
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

/// Whether every program that shows pictures reads it.
fn is_safe(kind: &str) -> bool {
    matches!(kind, "image/jpeg" | "image/png" | "image/gif")
}

fn varying(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// What is answered where a preset of a picture is not there.
fn missing(picture: &Picture, preset: &str, state: &State) -> Result<Response, Problem> {
    let known = state.catalog.presets().iter().any(|known| known.name == preset);
    if !known {
        return Err(Problem::not_found(format!("there is no preset {preset:?}")));
    }
    match picture.status {
        ImageStatus::Failed => Err(Problem::not_found("the picture could not be had; the product says why")),
        ImageStatus::Ready => Err(Problem::not_found("the picture was processed before there was this preset")),
        ImageStatus::Pending | ImageStatus::Processing => {
            let hash = picture.thumbhash.as_deref().filter(|_| state.pictures.placeholder == Placeholder::Thumbhash);
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
    let detail = "the picture is on its way; it is there in a moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::NotReadyYet, detail)
        .with_header(header::RETRY_AFTER, SECONDS_UNTIL_READY)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

fn not_acceptable(kinds: &[&str]) -> Problem {
    let detail = format!("the picture is there as {}, and the request accepts none of them", kinds.join(", "));
    Problem::new(StatusCode::NOT_ACCEPTABLE, ErrorCode::NotAcceptable, detail)
}

fn not_made(error: &Arc<ResizeError>) -> Problem {
    match &**error {
        ResizeError::Catalog(error) => error.clone().into(),
        ResizeError::Pending => not_yet(),
        ResizeError::Nothing => Problem::not_found(error.to_string()),
        ResizeError::Picture { code, message } => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, *code, message.clone())
        }
        ResizeError::Storage(storage) if storage.is_transient() => {
            Problem::unavailable(storage.code(), Arc::clone(error))
        }
        ResizeError::Busy => Problem::unavailable(ErrorCode::Unavailable, Arc::clone(error)),
        ResizeError::Storage(_) | ResizeError::Broken(_) => Problem::internal(Arc::clone(error)),
    }
}

/// The number of a picture as it stands in a path: digits and nothing else.
pub(super) fn parse_image(text: &str) -> Result<ImageId, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| ImageId::from_str(text).ok()).flatten().ok_or_else(|| no_number("picture"))
}

fn no_number(what: &str) -> Problem {
    Problem::not_found(format!("there is no such {what}: its id is no number"))
}
