//! The closed list of error codes. The same code stands in an API problem, in a job's row and in a terminal's message.

use std::fmt;

macro_rules! codes {
    ($($variant:ident = $name:literal: $meaning:literal,)+) => {
        /// Why something was refused or failed; a closed list that `docs/ERRORS.md` explains.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)+
        }

        impl ErrorCode {
            /// Every code there is, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as clients see it: lower case, words joined by `_`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the code means, in one sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// The code that is written `name`, if there is one.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    // Requests.
    BadRequest = "bad_request": "The request cannot be read.",
    HeadTooLarge = "head_too_large": "The request's line and headers are over the limit.",
    Misdirected = "misdirected": "The server does not answer for the host that the request names.",
    MalformedJson = "malformed_json": "The body is not the JSON that is expected.",
    Validation = "validation": "One or more fields have a value that is not allowed.",
    NotFound = "not_found": "There is no such resource.",
    Gone = "gone": "The resource was deleted.",
    MethodNotAllowed = "method_not_allowed": "The resource does not know this method.",
    Conflict = "conflict": "The request contradicts what is stored.",
    PreconditionFailed = "precondition_failed": "The resource is no longer what the request takes it for.",
    IdempotencyKeyReused = "idempotency_key_reused": "The idempotency key was used for another request.",
    BodyTooLarge = "body_too_large": "The request's body is over the limit.",
    NotAcceptable = "not_acceptable": "The resource is there in no form that the client accepts.",
    SignatureRefused = "signature_refused": "The address is not signed with a key of this installation.",
    NotReadyYet = "not_ready_yet": "The picture is on its way still.",
    UnsupportedMediaType = "unsupported_media_type": "The request's body is of a kind that is not read.",
    Unauthorized = "unauthorized": "The request does not say who makes it.",
    InvalidToken = "invalid_token": "The access token or key is not believed.",
    InsufficientScope = "insufficient_scope": "The access token or key is not made for this.",
    ForeignOrigin = "foreign_origin": "A page of another origin asks for a change.",
    Forbidden = "forbidden": "The resource is somebody else's.",
    RateLimited = "rate_limited": "The client makes more requests than it may.",
    RangeNotSatisfiable = "range_not_satisfiable": "The requested range lies outside the file.",
    DeadlineExceeded = "deadline_exceeded": "The request took longer than the server allows.",
    Unavailable = "unavailable": "A component that the request needs does not answer.",
    NotConfigured = "not_configured": "A setting that the request needs is not set.",
    Internal = "internal": "Something is wrong inside pm; the log has the details.",
    // Downloads of pictures.
    AddressRefused = "address_refused": "The picture's address is not one that pm fetches from.",
    DnsFailed = "dns_failed": "The name of the picture's host could not be looked up.",
    HostNotFound = "host_not_found": "The picture's host does not exist.",
    ConnectFailed = "connect_failed": "No connection to the picture's host, or it broke off.",
    TlsFailed = "tls_failed": "The picture's host has no valid certificate.",
    TimedOut = "timed_out": "The picture's host was too slow.",
    SourceNotFound = "source_not_found": "The picture's host has no such picture.",
    SourceDamaged = "source_damaged": "The stored file of the image is damaged.",
    SourceForbidden = "source_forbidden": "The picture's host refuses access.",
    SourceRefused = "source_refused": "The picture's host refuses the request.",
    SourceUnavailable = "source_unavailable": "The picture's host cannot answer for the moment.",
    RedirectRefused = "redirect_refused": "The picture's host redirects too often or without a place to go.",
    TooLarge = "too_large": "The picture has more bytes than are read.",
    // Decoding and encoding.
    Empty = "empty": "The picture has no bytes.",
    UnsupportedFormat = "unsupported_format": "The file is not a picture of a kind that is read.",
    TooManyPixels = "too_many_pixels": "The picture has more pixels than are decoded.",
    TooComplex = "too_complex": "The picture costs more memory or work than is spent on one.",
    Undecodable = "undecodable": "The picture is damaged.",
    Poison = "poison": "Workers or decoders died over this picture.",
    // Storing.
    StorageFull = "storage_full": "There is no room left for pictures.",
    StorageUnavailable = "storage_unavailable": "The store for pictures does not answer.",
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
    fn every_code_reads_back_from_its_name() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
        }
    }
}
