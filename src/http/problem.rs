//! Error responses as `application/problem+json` (RFC 9457). The cause of a 5xx goes to the log, never to the client.

use std::{borrow::Cow, error::Error as StdError, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use warp::{
    Rejection, Reply,
    reject::{self, Reject},
    reply::Response,
};

use super::headers::request_id::RequestId;
use crate::{
    blobs, catalog,
    code::ErrorCode,
    domain::{FieldError, FieldErrors, Invalid, Malformed},
};

/// An error response to a client.
///
/// As a [`Reply`] it has no body: the response carries it in its extensions. `Service::answer`, which knows the request
/// id, writes the body and logs the cause.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: ErrorCode,
    detail: Cow<'static, str>,
    errors: FieldErrors,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<BoxError>,
    is_overload: bool,
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `/problems/`, followed by the code.
    #[schema(example = "/problems/validation")]
    r#type: String,
    /// The meaning of the code.
    title: &'a str,
    /// The response's HTTP status.
    status: u16,
    /// The error in this request, as a sentence.
    detail: &'a str,
    /// The invalid fields, at most 20.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    /// The number of errors that `errors` omits; absent if it omits none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    more_errors: Option<usize>,
    /// The error code, from a closed list.
    #[schema(example = "validation")]
    code: &'a str,
    /// The request id, which the server's log contains too.
    request_id: &'a str,
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// A problem that a filter rejected a request with.
#[derive(Debug)]
struct Rejected(Arc<Problem>);

impl Reject for Rejected {}

/// `Retry-After` of transient failures, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    /// Creates a problem without a cause; `detail` describes the error in a sentence.
    pub fn new(status: StatusCode, code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: FieldErrors::default(),
            headers: Vec::new(),
            source: None,
            is_overload: false,
        }
    }

    /// Creates a 400 problem for a request that cannot be parsed.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, detail)
    }

    /// Creates a problem for a head that hyper refuses with 400, 414 or 431.
    pub fn unreadable(status: StatusCode) -> Self {
        match status {
            StatusCode::URI_TOO_LONG => Self::new(status, ErrorCode::HeadTooLarge, "the request target is too long"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                Self::new(status, ErrorCode::HeadTooLarge, "the request line and headers exceed the limit of 64 KiB")
            }
            _ => Self::bad_request("the request line or a header is malformed"),
        }
    }

    /// Creates a 404 problem.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, detail)
    }

    /// Creates a 500 problem; `source` goes to the log only.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..Self::hidden(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal) }
    }

    /// Creates a 503 or 507 problem with `Retry-After`; `source` goes to the log only.
    pub fn unavailable(code: ErrorCode, source: impl Into<BoxError>) -> Self {
        let status = match code {
            ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let problem = Self { source: Some(source.into()), ..Self::hidden(status, code) };
        problem.with_header(header::RETRY_AFTER, RETRY_AFTER)
    }

    /// Creates a 503 problem with `Retry-After` for a request above a limit of the server. It is logged as a warning.
    pub fn overloaded(source: impl Into<BoxError>) -> Self {
        Self { is_overload: true, ..Self::unavailable(ErrorCode::Unavailable, source) }
    }

    /// Sets the invalid fields.
    #[must_use]
    pub fn with_errors(mut self, errors: FieldErrors) -> Self {
        self.errors = errors;
        self
    }

    /// Adds an invalid field.
    #[must_use]
    pub fn with_error(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.errors.push(field, message);
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds the URL of the resource metadata to the challenge.
    ///
    /// Does nothing without a challenge (RFC 9728, section 5.1).
    #[must_use]
    pub fn with_metadata_at(mut self, address: &str) -> Self {
        for (name, value) in &mut self.headers {
            if *name == header::WWW_AUTHENTICATE
                && let Ok(challenge) = value.to_str()
                && let Ok(longer) = HeaderValue::try_from(format!("{challenge}, resource_metadata=\"{address}\""))
            {
                *value = longer;
            }
        }
        self
    }

    /// Whether the status is 401: the credentials are missing or invalid.
    pub fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// Whether a limit of the server refused the request.
    pub const fn is_overload(&self) -> bool {
        self.is_overload
    }

    /// Returns the chain of causes for the log; empty if there is none.
    pub fn chain(&self) -> String {
        let mut chain = String::new();
        let mut next = self.source.as_deref().map(|error| error as &dyn StdError);
        while let Some(error) = next {
            if !chain.is_empty() {
                chain.push_str(": ");
            }
            chain.push_str(&error.to_string());
            next = error.source();
        }
        chain
    }

    /// Returns the response's body.
    pub fn to_json(&self, request_id: &RequestId) -> Bytes {
        let body = ProblemBody {
            r#type: format!("/problems/{}", self.code),
            title: self.code.meaning(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: self.errors.listed(),
            more_errors: Some(self.errors.more()).filter(|more| *more > 0),
            code: self.code.as_str(),
            request_id: request_id.as_str(),
        };
        serde_json::to_vec(&body).expect("text and numbers always become JSON").into()
    }

    /// Returns the response's status and headers, with an empty body.
    pub fn head(&self) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = self.status;
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.headers_mut().extend(self.headers.iter().cloned());
        response
    }

    /// Converts the problem to a filter's rejection.
    pub fn reject(self) -> Rejection {
        reject::custom(Rejected(Arc::new(self)))
    }

    fn hidden(status: StatusCode, code: ErrorCode) -> Self {
        Self::new(status, code, "The server could not complete the request; see its log for this request id.")
    }
}

impl Reply for Problem {
    fn into_response(self) -> Response {
        carry(Arc::new(self))
    }
}

fn carry(problem: Arc<Problem>) -> Response {
    let mut response = problem.status.into_response();
    response.extensions_mut().insert(problem);
    response
}

/// Converts a filter's rejection to a response. Handlers' errors do not pass through here.
///
/// The route table checks path and method before the filters run. A rejection for path or method therefore means that
/// the table and the filters disagree, and becomes a 500.
pub async fn from_rejection(rejection: Rejection) -> Result<Response, std::convert::Infallible> {
    if let Some(Rejected(problem)) = rejection.find() {
        return Ok(carry(Arc::clone(problem)));
    }
    Ok(Problem::internal(format!("no filter matched the request: {rejection:?}")).into_response())
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let detail = match invalid.errors.listed() {
            [only] => format!("{} {}", only.field, only.message),
            _ => format!("{} fields are invalid; see `errors`", invalid.errors.count()),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Validation, detail).with_errors(invalid.errors)
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::MalformedJson, malformed.to_string())
    }
}

impl From<catalog::Error> for Problem {
    fn from(error: catalog::Error) -> Self {
        use catalog::Error;
        let (code, transient) = (error.code(), error.is_transient());
        match error {
            Error::Invalid(invalid) => invalid.into(),
            Error::NotFound { what } => Self::not_found(format!("{what} not found")),
            gone @ Error::Gone { .. } => Self::new(StatusCode::GONE, code, gone.to_string()),
            Error::Precondition(detail) => Self::new(StatusCode::PRECONDITION_FAILED, code, detail),
            Error::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, "the `Idempotency-Key` was used for another request")
            }
            backlog @ Error::Backlog { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, code, backlog.to_string())
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("60")),
            Error::Conflict(detail) => Self::new(StatusCode::CONFLICT, code, detail),
            gone @ Error::BlobGone { .. } => Self::new(StatusCode::CONFLICT, ErrorCode::Conflict, gone.to_string()),
            Error::NotConfigured(detail) => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail),
            other if transient => Self::unavailable(code, other),
            other => Self::internal(other),
        }
    }
}

impl From<blobs::Error> for Problem {
    fn from(error: blobs::Error) -> Self {
        if error.is_transient() { Self::unavailable(error.code(), error) } else { Self::internal(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> serde_json::Value {
        let headers =
            http::HeaderMap::from_iter([(super::super::headers::request_id::HEADER, HeaderValue::from_static("r-1"))]);
        serde_json::from_slice(&problem.to_json(&RequestId::of(&headers))).expect("JSON")
    }

    #[test]
    fn a_problem_names_the_invalid_field_and_the_request_id() {
        let problem = Problem::from(Invalid::field("product_price", "must not be negative"));
        assert_eq!(
            json(&problem),
            serde_json::json!({
                "type": "/problems/validation",
                "title": ErrorCode::Validation.meaning(),
                "status": 422,
                "detail": "product_price must not be negative",
                "errors": [{"field": "product_price", "message": "must not be negative"}],
                "code": "validation",
                "request_id": "r-1",
            })
        );
    }

    #[test]
    fn a_5xx_logs_its_cause_and_hides_it_from_the_client() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read table secret_table")]
        struct Outer(#[source] std::io::Error);

        let problem = Problem::internal(Outer(std::io::Error::other("host db-1 is gone")));
        assert_eq!(problem.chain(), "cannot read table secret_table: host db-1 is gone");
        let shown = json(&problem).to_string();
        assert!(!shown.contains("secret_table") && !shown.contains("db-1"), "{shown}");
        assert!(json(&problem).get("errors").is_none());
    }

    #[test]
    fn a_transient_failure_is_503_with_retry_after() {
        let head = Problem::unavailable(ErrorCode::StorageUnavailable, "S3 is unavailable").head();
        assert_eq!(head.status(), 503);
        assert_eq!(head.headers()[header::RETRY_AFTER], "1");
        assert_eq!(head.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[tokio::test]
    async fn a_rejection_preserves_the_filters_problem() {
        let rejection = Problem::bad_request("the query is not UTF-8").reject();
        let Ok(response) = from_rejection(rejection).await;
        assert_eq!(response.status(), 400);
        let problem = response.extensions().get::<Arc<Problem>>().expect("a problem");
        assert_eq!(problem.detail, "the query is not UTF-8");
    }
}
