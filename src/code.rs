//! Error codes: a closed list shared by the API's problem responses, job rows and CLI messages.

use std::fmt;

macro_rules! codes {
    ($($variant:ident = $name:literal: $meaning:literal,)+) => {
        /// Error code of a rejection or failure; `docs/ERRORS.md` explains each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the code in snake case, as clients see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the code's meaning in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// Parses a code.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    // Requests.
    BadRequest = "bad_request": "The request is malformed.",
    HeadTooLarge = "head_too_large": "The request's line and headers are over the limit.",
    Misdirected = "misdirected": "The server does not serve the requested host.",
    MalformedJson = "malformed_json": "The body is not valid JSON of the expected form.",
    Validation = "validation": "One or more fields have a value that is not allowed.",
    NotFound = "not_found": "The resource does not exist.",
    Gone = "gone": "The resource was deleted.",
    MethodNotAllowed = "method_not_allowed": "The resource does not support this method.",
    Conflict = "conflict": "The request conflicts with the stored state.",
    PreconditionFailed = "precondition_failed": "The resource has changed since the client read it.",
    IdempotencyKeyReused = "idempotency_key_reused": "The idempotency key was used for another request.",
    BodyTooLarge = "body_too_large": "The request's body is over the limit.",
    NotAcceptable = "not_acceptable": "The resource is not available in a format that the client accepts.",
    SignatureRefused = "signature_refused": "The URL's signature is invalid.",
    NotReadyYet = "not_ready_yet": "The image is not processed yet.",
    UnsupportedMediaType = "unsupported_media_type": "The media type of the request's body is not supported.",
    Unauthorized = "unauthorized": "The request has no credentials.",
    InvalidToken = "invalid_token": "The access token or API key is invalid.",
    InsufficientScope = "insufficient_scope": "The access token or API key lacks a required scope.",
    ForeignOrigin = "foreign_origin": "The request comes from a page of another origin.",
    Forbidden = "forbidden": "The resource belongs to another user.",
    RateLimited = "rate_limited": "The client exceeds its rate limit.",
    RangeNotSatisfiable = "range_not_satisfiable": "The requested range is outside the file.",
    DeadlineExceeded = "deadline_exceeded": "The request took longer than the server allows.",
    Unavailable = "unavailable": "A component that the request needs is unavailable.",
    NotConfigured = "not_configured": "A setting that the request needs is not set.",
    Internal = "internal": "Internal error; the server log has the details.",
    // Downloads of images.
    AddressRefused = "address_refused": "The image's URL is not permitted.",
    DnsFailed = "dns_failed": "DNS lookup of the image's host failed.",
    HostNotFound = "host_not_found": "The image's host does not exist.",
    ConnectFailed = "connect_failed": "The connection to the image's host failed.",
    TlsFailed = "tls_failed": "The image's host has no valid certificate.",
    TimedOut = "timed_out": "The image's host was too slow.",
    SourceNotFound = "source_not_found": "The image's host has no such image.",
    SourceDamaged = "source_damaged": "The stored file of the image is damaged.",
    SourceForbidden = "source_forbidden": "The image's host refuses access.",
    SourceRefused = "source_refused": "The image's host refuses the request.",
    SourceUnavailable = "source_unavailable": "The image's host is temporarily unavailable.",
    RedirectRefused = "redirect_refused": "The image's host redirects too often or without a target.",
    TooLarge = "too_large": "The image exceeds the limit on bytes.",
    // Decoding and encoding.
    Empty = "empty": "The image has no bytes.",
    UnsupportedFormat = "unsupported_format": "The file is not an image in a supported format.",
    TooManyPixels = "too_many_pixels": "The image exceeds the limit on pixels.",
    TooComplex = "too_complex": "The image exceeds the limits on memory or CPU time.",
    Undecodable = "undecodable": "The image is damaged.",
    Poison = "poison": "Workers or decoders crashed while processing this image.",
    // Storing.
    StorageFull = "storage_full": "The blob store is full.",
    StorageUnavailable = "storage_unavailable": "The blob store is unavailable.",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_in_the_documentation() {
        let page = include_str!("../docs/ERRORS.md");
        for code in ErrorCode::ALL {
            assert!(page.contains(&format!("| `{code}` |")), "docs/ERRORS.md does not explain {code}");
        }
    }

    #[test]
    fn operations_has_a_remedy_for_every_code_of_a_failed_image() {
        let errors = include_str!("../docs/ERRORS.md");
        let sections = errors.split("\n## ").filter(|section| section.starts_with("Images: "));
        let sections = sections.filter(|section| !section.starts_with("Images: warnings"));
        let codes: Vec<_> = sections
            .flat_map(|section| section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()))
            .collect();
        let page = include_str!("../docs/OPERATIONS.md");
        let page = page.split("\n## ").find(|section| section.starts_with("Dead letters")).expect("a section");
        assert!(codes.contains(&"host_not_found") && codes.contains(&"undecodable"), "{codes:?}");
        let missing: Vec<_> = codes.iter().filter(|code| !page.contains(&format!("`{code}`"))).collect();
        assert!(missing.is_empty(), "docs/OPERATIONS.md has no remedy for {missing:?}");
    }

    #[test]
    fn every_code_round_trips() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
        }
    }
}
