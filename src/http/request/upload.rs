//! Multipart uploads. Each file is streamed to a temporary file and stored before the next one is read.
//!
//! An upload may take long while its bytes arrive; one that stalls or is too slow is aborted. Memory use does not
//! depend on the size of the files.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use multer::{Constraints, Field, Multipart, SizeLimit};
use warp::{Filter, Rejection};

use super::extract;
use crate::{
    catalog::{self, Catalog, UploadedFiles},
    code::ErrorCode,
    domain::{FieldError, Invalid, NewProduct},
    http::{
        admission::request::{Kind, RequestAdmission},
        problem::Problem,
    },
};

/// Maximum duration of an upload.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(900);
/// Maximum wait for the next bytes.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Time after which an upload must reach the minimum rate.
const RATE_GRACE: Duration = Duration::from_secs(20);
/// Minimum rate, averaged since the start of the upload.
const MIN_BYTES_PER_SECOND: u64 = 8 * 1024;
/// Maximum number of parts without a file: a form sends one for each input in which the user chose no file.
const MAX_EMPTY_PARTS: usize = NewProduct::MAX_IMAGES;
/// Allowance for the multipart framing around the files, in bytes.
const FRAMING_BYTES: u64 = 1 << 20;

/// A body as a stream of chunks.
pub type Chunks = BoxStream<'static, Result<Bytes, warp::Error>>;

/// Limits of all uploads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_bytes: u64,
}

/// The reason why reading a body stops.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the upload stalled or is too slow")]
    TooSlow,
    #[error("the connection closed before the end of the body")]
    BrokeOff,
}

/// Extracts a body as a stream of chunks.
pub fn chunks() -> impl Filter<Extract = (Chunks,), Error = Rejection> + Clone {
    warp::body::stream().map(own)
}

fn own<B: Buf>(body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static) -> Chunks {
    body.map(|piece| piece.map(|mut piece| piece.copy_to_bytes(piece.remaining()))).boxed()
}

impl Uploads {
    /// Creates limits for files of at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        Self(Arc::new(Shared { max_bytes }))
    }

    /// Stores all files of a multipart body, or none.
    ///
    /// # Errors
    /// 400 for a malformed body, 408 for a slow one, 413 for a file that is too large, 415 for a body with a content
    /// coding, 422 for a file that is not an image and for too many files or empty parts, 503 if too many uploads are in
    /// progress. An error about a file names it.
    pub async fn receive(
        &self,
        headers: &HeaderMap,
        body: Chunks,
        admission: &RequestAdmission,
        catalog: &Catalog,
    ) -> Result<UploadedFiles, Problem> {
        extract::check_coding(headers)?;
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(content_type)
            .map_err(|_| Problem::bad_request("the `Content-Type` of a multipart body must have a `boundary`"))?;
        let most = self.0.max_bytes.saturating_mul(NewProduct::MAX_IMAGES as u64).saturating_add(FRAMING_BYTES);
        let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(most));
        admission.begins_body(Kind::Upload).await?;
        let multipart = Multipart::with_constraints(paced(body, admission), boundary, constraints);
        let mut stored = catalog.begin_upload();
        let outcome = tokio::select! {
            outcome = self.store_all(multipart, &mut stored, catalog) => outcome,
            problem = admission.loses_body() => Err(problem),
        };
        let outcome = match outcome {
            Ok(()) => admission.works().await,
            refused => refused,
        };
        match outcome {
            Ok(()) => Ok(stored),
            Err(problem) => {
                stored.discard().await;
                Err(problem)
            }
        }
    }

    async fn store_all(
        &self,
        mut multipart: Multipart<'_>,
        stored: &mut UploadedFiles,
        catalog: &Catalog,
    ) -> Result<(), Problem> {
        let mut empty = 0;
        while let Some(field) = multipart.next_field().await.map_err(|error| refusal(&error))? {
            if stored.len() == NewProduct::MAX_IMAGES {
                let message = format!("has more than {} files", NewProduct::MAX_IMAGES);
                return Err(Invalid::field("file", message).into());
            }
            if is_text(&field) {
                let message = "is not a known field; this form accepts only files";
                return Err(Invalid::field(shown(field.name().unwrap_or_default()), message).into());
            }
            if !self.store(field, stored, catalog).await? {
                empty += 1;
            }
            if empty > MAX_EMPTY_PARTS {
                let message = format!("has more than {MAX_EMPTY_PARTS} parts without a file");
                return Err(Invalid::field("file", message).into());
            }
        }
        if stored.is_empty() {
            return Err(Invalid::field("file", "is required; the body has no file").into());
        }
        Ok(())
    }

    /// Stores a file. Returns `false` for a form field for which the user chose no file.
    async fn store(
        &self,
        mut field: Field<'_>,
        stored: &mut UploadedFiles,
        catalog: &Catalog,
    ) -> Result<bool, Problem> {
        let index = stored.len();
        let is_unnamed = field.file_name() == Some("");
        let name = shown(field.file_name().or(field.name()).unwrap_or_default());
        let mut next = next_chunk(&mut field).await?;
        if next.is_none() && is_unnamed {
            return Ok(false);
        }
        let mut incoming = catalog.receive_source().await?;
        while let Some(chunk) = next {
            if incoming.size() + chunk.len() as u64 > self.0.max_bytes {
                let detail = format!("file {name} exceeds the limit of {} bytes", self.0.max_bytes);
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, detail)
                    .with_errors(Invalid::from(about(index, &name, "is too large")).errors));
            }
            incoming.write(&chunk).await?;
            next = next_chunk(&mut field).await?;
        }
        stored.store(incoming).await.map_err(|error| match error {
            catalog::Error::Invalid(invalid) => {
                let errors = invalid.errors.map(|error| about(index, &name, &error.message));
                Problem::from(Invalid { errors })
            }
            error => error.into(),
        })?;
        Ok(true)
    }
}

/// Returns the next bytes of a part; `None` at its end.
async fn next_chunk(field: &mut Field<'_>) -> Result<Option<Bytes>, Problem> {
    loop {
        match field.chunk().await.map_err(|error| refusal(&error))? {
            Some(chunk) if chunk.is_empty() => {}
            chunk => return Ok(chunk),
        }
    }
}

/// Whether the body is `multipart/form-data`.
pub fn is_multipart(headers: &HeaderMap) -> bool {
    extract::is_of_kind(&["multipart/form-data"], headers)
}

/// Enforces the rate and time limits on a body.
///
/// Updates `admission` at each wait for the client, so that a stalled upload is the first to lose its permit.
fn paced(body: Chunks, admission: &RequestAdmission) -> impl Stream<Item = Result<Bytes, Stopped>> + Send + '_ {
    let begun = Instant::now();
    futures_util::stream::unfold((body, 0_u64, false), move |(mut body, received, ended)| async move {
        if ended {
            return None;
        }
        admission.waits_for_body();
        let left = UPLOAD_TIMEOUT.saturating_sub(begun.elapsed()).min(MAX_PAUSE);
        let next = tokio::time::timeout(left, body.next()).await;
        admission.passed_on(match &next {
            Ok(Some(Ok(piece))) => piece.len(),
            _ => 0,
        });
        let piece = match next {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) => return Some((Err(Stopped::BrokeOff), (body, received, true))),
            Ok(None) => return None,
            Err(_elapsed) => return Some((Err(Stopped::TooSlow), (body, received, true))),
        };
        let received = received + piece.len() as u64;
        let elapsed = begun.elapsed();
        if elapsed > RATE_GRACE && received < MIN_BYTES_PER_SECOND * elapsed.as_secs() {
            return Some((Err(Stopped::TooSlow), (body, received, true)));
        }
        Some((Ok(piece), (body, received, false)))
    })
}

/// Whether a part is a text field: it has no file name, and a text type or none.
fn is_text(field: &Field<'_>) -> bool {
    let kind = field.content_type().map(|kind| kind.type_().as_str());
    field.file_name().is_none() && kind.is_none_or(|kind| kind == "text")
}

fn refusal(error: &multer::Error) -> Problem {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast_ref() {
            Some(Stopped::TooSlow) => {
                let detail = "the upload stalled or was too slow";
                Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::DeadlineExceeded, detail)
                    .with_header(header::CONNECTION, HeaderValue::from_static("close"))
            }
            _ => Problem::bad_request("the connection closed before the end of the body"),
        },
        multer::Error::StreamSizeExceeded { limit } => {
            let detail = format!("the body exceeds the limit of {limit} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BodyTooLarge, detail)
        }
        _ => Problem::bad_request("the body is not valid multipart/form-data, as its `Content-Type` states"),
    }
}

fn about(index: usize, name: &str, message: &str) -> FieldError {
    FieldError::new(format!("file[{index}]"), format!("({name}) {message}"))
}

/// Returns a file's name for messages: without control characters, at most 100 characters.
fn shown(name: &str) -> String {
    let kept: String = name.chars().filter(|letter| !letter.is_control()).take(100).collect();
    if kept.is_empty() { "unnamed".into() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_file_name_is_short_and_has_no_control_characters() {
        assert_eq!(shown("a\r\nb.jpg"), "ab.jpg");
        assert_eq!(shown(""), "unnamed");
        assert_eq!(shown(&"x".repeat(500)).len(), 100);
    }
}
