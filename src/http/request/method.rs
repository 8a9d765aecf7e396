//! Request methods, as a closed list.

use std::fmt;

use http::Method;

/// A request method; a closed list, so that labels in logs and metrics are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestMethod {
    /// `GET`
    Get,
    /// `HEAD`: `GET` without the body.
    Head,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// Any other method.
    Other,
}

impl RequestMethod {
    /// All methods.
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Post, Self::Options, Self::Put, Self::Patch, Self::Delete, Self::Other];

    /// Converts a method of the `http` crate.
    pub fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::OPTIONS => Self::Options,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }

    /// Returns the label in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Options => "OPTIONS",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "OTHER",
        }
    }
}

impl fmt::Display for RequestMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_is_labeled_other() {
        let method = Method::from_bytes(b"BREW").expect("a token");
        assert_eq!(RequestMethod::of(&method).as_str(), "OTHER");
    }
}
