//! Entity tags of products and webhooks, and preconditions of changes.
//!
//! A tag is `"{edit}.{state}"`. `edit` is a hash of the fields that clients can edit, `state` a hash of the whole JSON.
//! Readers compare the whole tag, so a worker's progress changes it. Changes compare only `edit`: a worker that
//! finishes between a client's GET and PATCH does not make the PATCH fail.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::catalog::Error;

/// Length of a tag with its quotes. Cache entries begin with a tag of this length.
pub(super) const TAG_BYTES: usize = 18;
/// Length of a tag up to the dot: the quote and the hash of the editable fields.
const EDIT_BYTES: usize = 8;
const STATE_CHARS: usize = 8;

/// Entity tags in a conditional request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any representation.
    Any,
    /// Tags with quotes, without a content coding suffix.
    Listed(Vec<Vec<u8>>),
}

/// Preconditions of a change (RFC 9110, section 13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// `If-Match`: the `edit` part of the current tag equals that of one of these.
    pub if_match: Option<Tags>,
    /// `If-None-Match`: the current tag is none of these.
    pub if_none_match: Option<Tags>,
}

/// The editable fields of a product's JSON.
#[derive(Serialize, Deserialize)]
struct EditedProduct<'a> {
    id: i64,
    #[serde(borrow)]
    product_name: Cow<'a, str>,
    #[serde(borrow)]
    product_description: Cow<'a, str>,
    #[serde(borrow)]
    product_price: &'a RawValue,
    #[serde(borrow)]
    images: Vec<EditedImage<'a>>,
}

/// The editable fields of an image's JSON.
#[derive(Serialize, Deserialize)]
struct EditedImage<'a> {
    id: i64,
    #[serde(borrow)]
    source_url: Cow<'a, str>,
}

/// Returns the entity tag of a product with this JSON.
///
/// # Errors
/// [`Error::Internal`] if `json` is not a product.
pub fn product_tag(json: &[u8]) -> Result<Bytes, Error> {
    let edited: EditedProduct<'_> = serde_json::from_slice(json).map_err(Error::internal)?;
    tag(&edited, json)
}

/// Returns the tag of a resource from its editable fields and its whole JSON.
pub(in crate::catalog) fn tag(edited: &impl Serialize, json: &[u8]) -> Result<Bytes, Error> {
    let edited = serde_json::to_vec(edited).map_err(Error::internal)?;
    // Base64 has no `-`, so a tag cannot look like one with a content coding suffix.
    let hash = |bytes: &[u8], chars: usize| STANDARD_NO_PAD.encode(&Sha256::digest(bytes)[..6])[..chars].to_owned();
    Ok(format!("\"{}.{}\"", hash(&edited, EDIT_BYTES - 1), hash(json, STATE_CHARS)).into())
}

impl Precondition {
    /// Checks the preconditions of a change of `what` against its current tag and JSON.
    ///
    /// # Errors
    /// [`Error::Precondition`] if one does not hold.
    pub fn check(&self, what: &str, tag: &[u8], json: &[u8]) -> Result<(), Error> {
        // Earlier versions made the tag from one hash of the whole JSON. Clients and caches may still have such tags.
        let is_earlier = |named: &Vec<u8>| *named == earlier_tag(json);
        let has_edit = |named: &Vec<u8>| named.len() == tag.len() && named.get(..=EDIT_BYTES) == tag.get(..=EDIT_BYTES);
        if let Some(Tags::Listed(tags)) = &self.if_match
            && !tags.iter().any(|named| has_edit(named) || is_earlier(named))
        {
            return Err(Error::Precondition(format!(
                "If-Match does not have the current entity tag of {what}; read it again, with the same credentials"
            )));
        }
        let excluded = match &self.if_none_match {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Listed(tags)) => tags.iter().any(|named| named == tag || is_earlier(named)),
        };
        match excluded {
            true => Err(Error::Precondition(format!("{what} exists with an entity tag that If-None-Match excludes"))),
            false => Ok(()),
        }
    }

    /// Checks the creation of `what`, which does not exist yet: `If-None-Match` holds, `If-Match` does not.
    ///
    /// # Errors
    /// [`Error::Precondition`] for a request with `If-Match`.
    pub fn check_creation(&self, what: &str) -> Result<(), Error> {
        match &self.if_match {
            Some(_) => Err(Error::Precondition(format!("If-Match names {what} that exists; this request creates one"))),
            None => Ok(()),
        }
    }

    /// Whether the request must not change an existing resource: `If-None-Match: *`.
    pub fn only_creates(&self) -> bool {
        self.if_none_match == Some(Tags::Any)
    }
}

fn earlier_tag(json: &[u8]) -> Vec<u8> {
    format!("\"{}\"", hex::encode(&Sha256::digest(json)[..8])).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(name: &str, status: &str) -> Vec<u8> {
        format!(
            r#"{{"id":1,"product_name":"{name}","product_description":"","product_price":19.90,"status":"{status}",
            "images":[{{"id":7,"source_url":"https://a.example/1.jpg","status":"{status}"}}]}}"#
        )
        .into_bytes()
    }

    fn check(named: &[u8], json: &[u8]) -> Result<(), Error> {
        let if_match = Some(Tags::Listed(vec![named.to_vec()]));
        let condition = Precondition { if_match, if_none_match: None };
        condition.check("product 1", &product_tag(json).expect("a product"), json)
    }

    #[test]
    fn processing_changes_the_tag_for_reads_but_not_for_if_match() {
        let (before, after) = (json("Lamp", "pending"), json("Lamp", "ready"));
        let (old, new) = (product_tag(&before).expect("a product"), product_tag(&after).expect("a product"));
        assert_ne!(old, new);
        assert_eq!(old.len(), TAG_BYTES);
        assert!(check(&old, &after).is_ok());
        assert!(check(&old, &json("Chair", "pending")).is_err());
    }

    #[test]
    fn a_tag_of_the_previous_version_matches_the_same_json() {
        let before = json("Lamp", "pending");
        assert!(check(&earlier_tag(&before), &before).is_ok());
        assert!(check(&earlier_tag(&before), &json("Lamp", "ready")).is_err());
    }

    #[test]
    fn if_none_match_excludes_existing_tags() {
        let now = json("Lamp", "ready");
        let tag = product_tag(&now).expect("a product");
        let excluding = |tags| Precondition { if_match: None, if_none_match: Some(tags) };
        assert!(excluding(Tags::Any).check("product 1", &tag, &now).is_err());
        assert!(excluding(Tags::Listed(vec![tag.to_vec()])).check("product 1", &tag, &now).is_err());
        assert!(excluding(Tags::Listed(vec![b"\"other\"".to_vec()])).check("product 1", &tag, &now).is_ok());
        assert!(excluding(Tags::Any).check_creation("a product").is_ok());
        let matching = Precondition { if_match: Some(Tags::Any), if_none_match: None };
        assert!(matching.check("product 1", &tag, &now).is_ok());
        assert!(matching.check_creation("a product").is_err());
    }
}
