//! Files as they stream in: each goes to a temporary file, up to the most that is read of an image, and is stored before the
//! next one is read. An upload may take long as long as its bytes flow; one that stalls or trickles is ended, and all uploads
//! together never hold more than a fixed amount of memory, whatever the size of their files.

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
        admission::turn::{Kind, Turn},
        problem::Problem,
    },
};

/// The longest that an upload may take, however fast it is.
pub const LONGEST: Duration = Duration::from_secs(900);
/// The longest wait for the next bytes.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After this time an upload must have kept up the least rate.
const RATE_GRACE: Duration = Duration::from_secs(20);
/// Bytes a second, on the average since the beginning.
const LEAST_RATE: u64 = 8 * 1024;
/// What form fields need around their files.
const AROUND: u64 = 1 << 20;

/// A body in pieces.
pub type Chunks = BoxStream<'static, Result<Bytes, warp::Error>>;

/// The bounds that all uploads share.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_bytes: u64,
}

/// Why a body is read no further.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the upload stands still or is too slow")]
    TooSlow,
    #[error("the body broke off")]
    BrokeOff,
}

/// The pieces of a body.
pub fn chunks() -> impl Filter<Extract = (Chunks,), Error = Rejection> + Clone {
    warp::body::stream().map(own)
}

fn own<B: Buf>(body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static) -> Chunks {
    body.map(|piece| piece.map(|mut piece| piece.copy_to_bytes(piece.remaining()))).boxed()
}

impl Uploads {
    /// Bounds for files of at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        Self(Arc::new(Shared { max_bytes }))
    }

    /// Stores the files of a multipart body, all of them or none.
    ///
    /// # Errors
    /// 400 for what is no such body, 408 for one that is too slow, 413 for a file that is too large, 422 for one that is no
    /// picture and for too many, 503 if too many uploads are under way; each names the file.
    pub async fn receive(
        &self,
        headers: &HeaderMap,
        body: Chunks,
        turn: &Turn,
        catalog: &Catalog,
    ) -> Result<UploadedFiles, Problem> {
        let told = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(told)
            .map_err(|_| Problem::bad_request("the `Content-Type` of a multipart body must tell its `boundary`"))?;
        let most = self.0.max_bytes.saturating_mul(NewProduct::MAX_IMAGES as u64).saturating_add(AROUND);
        let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(most));
        turn.begins_body(Kind::Upload).await?;
        let multipart = Multipart::with_constraints(paced(body, turn), boundary, constraints);
        let mut stored = catalog.begin_upload();
        let outcome = tokio::select! {
            outcome = self.store_all(multipart, &mut stored, catalog) => outcome,
            problem = turn.loses_body() => Err(problem),
        };
        let outcome = match outcome {
            Ok(()) => turn.works().await,
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
        while let Some(field) = multipart.next_field().await.map_err(|error| refusal(&error))? {
            if stored.len() == NewProduct::MAX_IMAGES {
                let message = format!("has more than {} files", NewProduct::MAX_IMAGES);
                return Err(Invalid::field("file", message).into());
            }
            if is_text(&field) {
                let message = "is not a known field of this form, which takes files alone";
                return Err(Invalid::field(shown(field.name().unwrap_or_default()), message).into());
            }
            self.store(field, stored, catalog).await?;
        }
        if stored.is_empty() {
            return Err(Invalid::field("file", "is required: the body has no file").into());
        }
        Ok(())
    }

    /// Stores a file; passes by a field of a form in which none was chosen.
    async fn store(&self, mut field: Field<'_>, stored: &mut UploadedFiles, catalog: &Catalog) -> Result<(), Problem> {
        let index = stored.len();
        let is_unnamed = field.file_name() == Some("");
        let name = shown(field.file_name().or(field.name()).unwrap_or_default());
        let mut incoming = catalog.receive_source().await?;
        while let Some(chunk) = field.chunk().await.map_err(|error| refusal(&error))? {
            if incoming.size() + chunk.len() as u64 > self.0.max_bytes {
                let detail = format!("{name} has more than {} bytes, which is the most that is read", self.0.max_bytes);
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, detail)
                    .with_errors(Invalid::from(about(index, &name, "has too many bytes")).errors));
            }
            incoming.write(&chunk).await?;
        }
        if is_unnamed && incoming.size() == 0 {
            return Ok(());
        }
        stored.store(incoming).await.map_err(|error| match error {
            catalog::Error::Invalid(invalid) => {
                let errors = invalid.errors.map(|error| about(index, &name, &error.message));
                Invalid { errors }.into()
            }
            error => error.into(),
        })
    }
}

/// Whether a request brings files.
pub fn is_multipart(headers: &HeaderMap) -> bool {
    extract::is_of_kind("multipart/form-data", headers)
}

/// The same pieces, as long as they come fast enough. The turn is told at each that the client is waited for, so that a
/// client that stands still makes room for others first.
fn paced(body: Chunks, turn: &Turn) -> impl Stream<Item = Result<Bytes, Stopped>> + Send + '_ {
    let begun = Instant::now();
    futures_util::stream::unfold((body, 0_u64, false), move |(mut body, received, ended)| async move {
        if ended {
            return None;
        }
        turn.waits_for_body();
        let left = LONGEST.saturating_sub(begun.elapsed()).min(LONGEST_PAUSE);
        let next = tokio::time::timeout(left, body.next()).await;
        turn.goes_on();
        let piece = match next {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) => return Some((Err(Stopped::BrokeOff), (body, received, true))),
            Ok(None) => return None,
            Err(_elapsed) => return Some((Err(Stopped::TooSlow), (body, received, true))),
        };
        let received = received + piece.len() as u64;
        let elapsed = begun.elapsed();
        if elapsed > RATE_GRACE && received < LEAST_RATE * elapsed.as_secs() {
            return Some((Err(Stopped::TooSlow), (body, received, true)));
        }
        Some((Ok(piece), (body, received, false)))
    })
}

/// Whether a part is a field of text: it has neither the name of a file nor a type that text does not have.
fn is_text(field: &Field<'_>) -> bool {
    let kind = field.content_type().map(|kind| kind.type_().as_str());
    field.file_name().is_none() && kind.is_none_or(|kind| kind == "text")
}

fn refusal(error: &multer::Error) -> Problem {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast_ref() {
            Some(Stopped::TooSlow) => {
                let detail = "the upload stood still or was too slow";
                Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::DeadlineExceeded, detail)
                    .with_header(header::CONNECTION, HeaderValue::from_static("close"))
            }
            _ => Problem::bad_request("the body broke off"),
        },
        multer::Error::StreamSizeExceeded { limit } => {
            let detail = format!("the body is over the limit of {limit} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BodyTooLarge, detail)
        }
        _ => Problem::bad_request("the body is not the multipart form that its `Content-Type` says"),
    }
}

fn about(index: usize, name: &str, message: &str) -> FieldError {
    FieldError::new(format!("file[{index}]"), format!("({name}) {message}"))
}

/// A file's name as far as it is repeated to anybody.
fn shown(name: &str) -> String {
    let kept: String = name.chars().filter(|letter| !letter.is_control()).take(100).collect();
    if kept.is_empty() { "unnamed".into() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_is_repeated_only_as_far_as_it_does_no_harm() {
        assert_eq!(shown("a\r\nb.jpg"), "ab.jpg");
        assert_eq!(shown(""), "unnamed");
        assert_eq!(shown(&"x".repeat(500)).len(), 100);
    }
}
