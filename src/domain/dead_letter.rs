//! A job that failed for good and waits for somebody to look at it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    domain::{ImageId, ImageSource, JobId, ProductId},
};

/// A job that failed for good, of the present run of its picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The job.
    pub id: JobId,
    /// The product of the picture.
    pub product_id: ProductId,
    /// The picture.
    pub image_id: ImageId,
    /// Where the picture comes from.
    pub source: ImageSource,
    /// Why the last attempt failed.
    pub error: Option<(ErrorCode, String)>,
    /// How many attempts there were.
    pub attempts: i32,
    /// How many workers and decoders died over it.
    pub crashes: i32,
    /// The request that caused the job.
    pub request_id: Option<String>,
    /// When the job was queued.
    pub queued_at: Timestamp,
    /// When it was given up.
    pub died_at: Timestamp,
}

/// A place among the dead letters, which lie in the order of their deaths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grave {
    /// When the job was given up.
    pub died_at: Timestamp,
    /// The job, which breaks ties.
    pub id: JobId,
}

/// A page of dead letters, the latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadQuery {
    /// Dead letters per page, 1 to 100.
    pub limit: u64,
    /// Only those that lie before this one.
    pub before: Option<Grave>,
}

impl DeadLetter {
    /// Its place among the others.
    pub const fn grave(&self) -> Grave {
        Grave { died_at: self.died_at, id: self.id }
    }
}

impl Grave {
    /// The cursor of a page that ended here.
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("d:{}:{}", self.died_at.0, self.id))
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// A sentence if no list answered it.
    pub fn decode(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let place = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| {
            let (died_at, id) = text.strip_prefix("d:")?.split_once(':')?;
            Some(Self { died_at: Timestamp(died_at.parse().ok()?), id: id.parse().ok()? })
        });
        place.ok_or_else(|| "is not a cursor that a list answered".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_made_up_one_is_refused() {
        let grave = Grave { died_at: Timestamp(1_700_000_000_000_001), id: JobId(7) };
        assert_eq!(Grave::decode(&grave.encode()), Ok(grave));
        for made_up in ["", "x", "ZDo", "ZDoxOg", &URL_SAFE_NO_PAD.encode("u:1:2")] {
            assert!(Grave::decode(made_up).is_err(), "{made_up}");
        }
    }
}
