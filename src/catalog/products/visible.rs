//! Redacts products for readers that do not own them.
//!
//! The product's user and administrators see everything. Other readers see source URLs without the query, which may
//! contain a secret such as `?X-Amz-Signature=…`. The cache holds the full body. Each process makes the redacted body
//! from it once per version of a product.

use std::{fmt, sync::Arc};

use moka::sync::Cache;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::{
    catalog::{Catalog, Error, products::read::Body, tags::TAG_BYTES},
    domain::{ProductId, Reader, UserId, without_secrets},
};

/// Maximum size of cached redacted bodies per process.
const MAX_SHOWN_BYTES: u64 = 16 << 20;
/// Memory of an entry in addition to its body.
const ENTRY_BYTES: usize = 300;

/// Redacted bodies, by product and tag of the full body.
#[derive(Debug)]
pub(in crate::catalog) struct Shown(Cache<Key, Arc<Others>>);

/// The tag is a copy: a slice would keep the whole cached body in memory.
type Key = (ProductId, [u8; TAG_BYTES]);

#[derive(Debug)]
struct Others {
    owner: UserId,
    /// The redacted body; `None` if it equals the full body.
    body: Option<Body>,
}

impl Default for Shown {
    fn default() -> Self {
        let weigh = |_: &Key, others: &Arc<Others>| {
            let body = others.body.as_ref().map_or(0, |body| body.json.len());
            u32::try_from(body + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(MAX_SHOWN_BYTES).weigher(weigh).build())
    }
}

impl Catalog {
    /// Returns the body of product `id` that `reader` may see, from the full body.
    ///
    /// # Errors
    /// [`Error::Internal`] if `body` is not a product.
    pub fn shown_to(&self, reader: Reader<'_>, id: ProductId, body: Body) -> Result<Body, Error> {
        if reader == Reader::Everything {
            return Ok(body);
        }
        let shown = &self.0.shown.0;
        let key = (id, body.etag.first_chunk().copied().unwrap_or_default());
        let others = match shown.get(&key) {
            Some(others) => others,
            None => {
                let others = Arc::new(others(&body)?);
                shown.insert(key, Arc::clone(&others));
                others
            }
        };
        Ok(match &others.body {
            Some(less) if !reader.sees_all_of(&others.owner) => less.clone(),
            _ => body,
        })
    }
}

fn others(body: &Body) -> Result<Others, Error> {
    #[derive(Deserialize)]
    struct Owned {
        user_id: String,
    }

    let owned: Owned = serde_json::from_slice(&body.json).map_err(Error::internal)?;
    let json = for_others(&body.json).map_err(Error::internal)?;
    let body = (json != body.json).then(|| Body::of_json(json.into())).transpose()?;
    Ok(Others { owner: UserId::stored(owned.user_id), body })
}

/// Returns a product's JSON with secrets removed from its source URLs. All other bytes stay the same.
fn for_others(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut product: Members = serde_json::from_slice(json)?;
    for (name, value) in &mut product.0 {
        match name.as_str() {
            "product_images" => {
                let addresses: Vec<String> = serde_json::from_str(value.get())?;
                let shown: Vec<_> = addresses.iter().map(|address| without_secrets(address)).collect();
                *value = serde_json::value::to_raw_value(&shown)?;
            }
            "images" => {
                let mut images: Vec<Members> = serde_json::from_str(value.get())?;
                let members = images.iter_mut().flat_map(|image| &mut image.0);
                for (_, value) in members.filter(|(name, _)| name == "source_url") {
                    let address: String = serde_json::from_str(value.get())?;
                    *value = serde_json::value::to_raw_value(without_secrets(&address))?;
                }
                *value = serde_json::value::to_raw_value(&images)?;
            }
            _ => {}
        }
    }
    serde_json::to_vec(&product)
}

/// The members of a JSON object in order, with raw values.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redaction_changes_only_source_urls() {
        let json = br##"{"id":1,"user_id":"u","product_images":["https://a.example/1?k=s"],"product_price":900719925474.0993,"images":[{"id":2,"source_url":"https://a.example/1?k=s","dominant_color":"#7a8b99","error":null}],"version":3}"##;
        let shown = br##"{"id":1,"user_id":"u","product_images":["https://a.example/1"],"product_price":900719925474.0993,"images":[{"id":2,"source_url":"https://a.example/1","dominant_color":"#7a8b99","error":null}],"version":3}"##;
        let made = for_others(json).expect("a product");
        assert_eq!(String::from_utf8_lossy(&made), String::from_utf8_lossy(shown));
        assert_eq!(for_others(shown).expect("a product"), shown);
        assert!(for_others(b"[]").is_err());
    }
}
