//! Decodes segments of a path and parses the ids in them.
//!
//! A request's path is percent-encoded. Handlers and the authorization middleware parse ids with the same functions, so
//! both always mean the same resource.

use std::{borrow::Cow, str::FromStr};

use warp::{Filter, Rejection};

use super::extract::{self, Context, decode_segment};
use crate::{
    domain::{DeliveryId, ImageId, JobId, ProductId, WebhookId},
    http::problem::Problem,
};

/// An id that is a number in a path.
pub trait NumberId: FromStr {
    /// What the id identifies, in messages.
    const RESOURCE: &str;
    /// The parameter's name.
    const PARAMETER: &str;
}

impl NumberId for ProductId {
    const RESOURCE: &str = "product";
    const PARAMETER: &str = "id";
}

impl NumberId for ImageId {
    const RESOURCE: &str = "image";
    const PARAMETER: &str = "image_id";
}

impl NumberId for JobId {
    const RESOURCE: &str = "dead letter";
    const PARAMETER: &str = "id";
}

impl NumberId for WebhookId {
    const RESOURCE: &str = "webhook";
    const PARAMETER: &str = "id";
}

impl NumberId for DeliveryId {
    const RESOURCE: &str = "delivery";
    const PARAMETER: &str = "delivery_id";
}

/// Extracts the id in the request's path.
///
/// Rejects the same segments as [`id`].
pub fn parameter<T: NumberId + Send>() -> impl Filter<Extract = (T,), Error = Rejection> + Clone {
    let parse = |context: Context| async move { id(context.params.get(T::PARAMETER)).map_err(Problem::reject) };
    extract::context().and_then(parse)
}

/// Extracts the parameter `name` of the request's path, percent-decoded.
///
/// Rejects invalid percent-encoding and invalid UTF-8 with 400.
pub fn text(name: &'static str) -> impl Filter<Extract = (String,), Error = Rejection> + Clone {
    let decode =
        move |context: Context| async move { decode_segment(context.params.get(name)).map_err(Problem::reject) };
    extract::context().and_then(decode)
}

/// Parses the id in a segment of a path: decimal digits, which may be percent-encoded.
///
/// # Errors
/// 400 for invalid percent-encoding or invalid UTF-8, 404 for anything but a number.
pub fn id<T: NumberId>(segment: &str) -> Result<T, Problem> {
    let text = match segment.contains('%') {
        true => Cow::Owned(decode_segment(segment)?),
        false => Cow::Borrowed(segment),
    };
    number(&text)
}

/// Parses an id: decimal digits.
///
/// # Errors
/// 404 for anything but a number.
pub fn number<T: NumberId>(text: &str) -> Result<T, Problem> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = if is_number { text.parse().ok() } else { None };
    id.ok_or_else(|| {
        let message = format!("must be a whole number from 0 to {}", i64::MAX);
        let detail = format!("{} not found: the id must be a number", T::RESOURCE);
        Problem::not_found(detail).with_error(T::PARAMETER, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(segment: &str) -> u16 {
        id::<ProductId>(segment).map_or_else(|problem| problem.head().status().as_u16(), |_| 200)
    }

    #[test]
    fn an_id_consists_of_decimal_digits() {
        assert_eq!(id::<ProductId>("12").ok(), Some(ProductId(12)));
        assert_eq!(id::<ProductId>("9223372036854775807").ok(), Some(ProductId(i64::MAX)));
        for wrong in ["", "+1", "-1", "1.0", " 1", "1e3", "0x1", "१", "9223372036854775808"] {
            assert_eq!(status(wrong), 404, "{wrong}");
        }
    }

    #[test]
    fn an_id_is_percent_decoded() {
        assert_eq!(id::<ImageId>("%31%32").ok(), Some(ImageId(12)));
        assert_eq!(id::<ImageId>("1%32").ok(), Some(ImageId(12)));
        for wrong in ["%2B1", "1%2F2", "%20", "1%00", "%2531"] {
            assert_eq!(status(wrong), 404, "{wrong}");
        }
        for malformed in ["%", "%3", "%zz", "1%FF"] {
            assert_eq!(status(malformed), 400, "{malformed}");
        }
    }
}
