//! A dead letter: a job that failed for good and waits for an operator.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    domain::{ImageId, ImageSource, JobId, ProductId},
};

/// A job that failed for good, of its image's current generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The job's id.
    pub id: JobId,
    /// The image's product.
    pub product_id: ProductId,
    /// The image.
    pub image_id: ImageId,
    /// The image's source.
    pub source: ImageSource,
    /// The error of the last attempt.
    pub error: Option<(ErrorCode, String)>,
    /// The number of attempts.
    pub attempts: i32,
    /// Workers and decoders that crashed on it.
    pub crashes: i32,
    /// The id of the request that created the job.
    pub request_id: Option<String>,
    /// The time at which the job was queued.
    pub queued_at: Timestamp,
    /// The time at which the job was given up.
    pub died_at: Timestamp,
}

/// A position in the list of dead letters, which is sorted by `died_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterCursor {
    /// The time at which the job was given up.
    pub died_at: Timestamp,
    /// The job, as the tie-breaker.
    pub id: JobId,
}

/// A page of dead letters, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadQuery {
    /// Dead letters per page, 1 to 100.
    pub limit: u64,
    /// Only dead letters before this one.
    pub before: Option<DeadLetterCursor>,
}

impl DeadLetter {
    /// Returns its position in the list.
    pub const fn cursor(&self) -> DeadLetterCursor {
        DeadLetterCursor { died_at: self.died_at, id: self.id }
    }
}

impl DeadLetterCursor {
    /// Encodes the cursor of a page that ends here.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("d:{}:{}", self.died_at.0, self.id))
    }

    /// Decodes a cursor.
    ///
    /// # Errors
    /// A message if it is malformed.
    pub fn decode(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let place = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| {
            let (died_at, id) = text.strip_prefix("d:")?.split_once(':')?;
            Some(Self { died_at: Timestamp(died_at.parse().ok()?), id: id.parse().ok()? })
        });
        place.ok_or_else(|| "is not a cursor of this list".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_decodes_to_the_same_value_and_a_malformed_one_is_rejected() {
        let cursor = DeadLetterCursor { died_at: Timestamp(1_700_000_000_000_001), id: JobId(7) };
        assert_eq!(DeadLetterCursor::decode(&cursor.encode()), Ok(cursor));
        for made_up in ["", "x", "ZDo", "ZDoxOg", &URL_SAFE_NO_PAD.encode("u:1:2")] {
            assert!(DeadLetterCursor::decode(made_up).is_err(), "{made_up}");
        }
    }
}
