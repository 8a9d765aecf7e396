//! Fingerprints of request bodies for idempotency.
//!
//! Equal JSON values have equal fingerprints, whatever their whitespace, field order, escapes or number format (`1.50`
//! and `1.5`).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use sha2::{Digest as _, Sha256};

type Digest = [u8; 32];

/// Returns the digest of the JSON value in `body`.
///
/// A body that is not JSON is hashed as bytes. Runs in linear time.
pub fn of(body: &[u8]) -> Digest {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let digest = Value.deserialize(&mut deserializer).and_then(|digest| deserializer.end().map(|()| digest));
    digest.unwrap_or_else(|_| hash("bytes", [body]))
}

/// Deserializes any JSON value to its digest.
#[derive(Clone, Copy)]
struct Value;

fn hash<'a>(kind: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hash = Sha256::new_with_prefix(kind);
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Digest;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Digest, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Digest;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Digest, E> {
        Ok(hash("null", []))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Digest, E> {
        Ok(hash("bool", [&[u8::from(value)][..]]))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Digest, E> {
        Ok(hash("number", [value.to_string().as_bytes()]))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Digest, E> {
        Ok(hash("number", [value.to_string().as_bytes()]))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Digest, E> {
        // `f64` formats a whole number like an integer.
        Ok(hash("number", [value.to_string().as_bytes()]))
    }

    fn visit_str<E>(self, value: &str) -> Result<Digest, E> {
        Ok(hash("string", [value.as_bytes()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Digest, A::Error> {
        let mut digests = Vec::new();
        while let Some(digest) = items.next_element_seed(self)? {
            digests.push(digest);
        }
        Ok(hash("list", digests.iter().map(|digest| &digest[..])))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Digest, A::Error> {
        let mut digests = Vec::new();
        while let Some(field) = fields.next_entry_seed(self, self)? {
            digests.push(field);
        }
        digests.sort_unstable();
        Ok(hash("object", digests.iter().flat_map(|(name, value)| [&name[..], &value[..]])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_json_values_have_equal_fingerprints() {
        let one = of(br#"{"name": "a\u00e9", "price": 1.50, "images": [1, null, true], "more": {"x": -1, "y": 2}}"#);
        for same in [
            r#"{"price":1.5,"name":"aé","more":{"y":2,"x":-1},"images":[1,null,true]}"#,
            r#"{"price":15e-1,"images":[1.0,null,true],"name":"\u0061\u00E9","more":{"x":-1.0,"y":2.00}}"#,
        ] {
            assert_eq!(of(same.as_bytes()), one, "{same}");
        }
    }

    #[test]
    fn different_json_values_have_different_fingerprints() {
        let values = [
            "1",
            "2",
            "-1",
            "1.5",
            "\"1\"",
            "null",
            "\"null\"",
            "true",
            "false",
            "[]",
            "{}",
            "[1]",
            "[[1]]",
            "[1,1]",
            "[1,2]",
            "[2,1]",
            "{\"1\":1}",
            "{\"1\":2}",
            "{\"2\":1}",
            "{\"1\":{\"1\":1}}",
            "",
            "{",
            "1 1",
        ];
        let digests: std::collections::BTreeSet<_> = values.iter().map(|json| of(json.as_bytes())).collect();
        assert_eq!(digests.len(), values.len());
    }

    #[test]
    fn deeply_nested_json_does_not_panic() {
        let deep = "[".repeat(1 << 20);
        assert_eq!(of(deep.as_bytes()), hash("bytes", [deep.as_bytes()]));
    }
}
