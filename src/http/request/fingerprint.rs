//! Fingerprints of request bodies for idempotency.
//!
//! Equal JSON values have equal fingerprints, whatever their whitespace, field order, escapes or number format (`1.50`
//! and `1.5`). Numbers are compared as exact decimals, never as floats.
//!
//! Memory does not grow with the number of list items or fields.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use sha2::{Digest as _, Sha256};

type Digest = [u8; 32];

/// Maximum number of fields of an object that are sorted. A larger object is hashed in the order of its fields.
const MAX_SORTED_FIELDS: usize = 256;

/// Returns the digest of the JSON value in `body`.
///
/// A body that is not JSON is hashed as bytes. Runs in linear time.
pub fn of(body: &[u8]) -> Digest {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let numbers = Numbers(Cell::new(body));
    let digest = Value(&numbers).deserialize(&mut deserializer);
    let digest = digest.and_then(|digest| deserializer.end().map(|()| digest));
    digest.unwrap_or_else(|_| hash("bytes", [body]))
}

/// Deserializes any JSON value to its digest.
#[derive(Clone, Copy)]
struct Value<'a>(&'a Numbers<'a>);

/// The numbers of a JSON text as they are written, in order. `serde_json` reports them only as floats.
struct Numbers<'a>(Cell<&'a [u8]>);

/// A decimal number: `digits` × 10^`exponent`. Zero has no digits; others neither start nor end with `0`.
struct DecimalNumber {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i128,
}

impl<'a> Numbers<'a> {
    /// Returns the next number outside of strings; empty after the last one.
    fn next(&self) -> &'a [u8] {
        let mut rest = self.0.get();
        let (number, rest) = loop {
            rest = match rest {
                [b'"', text @ ..] => after_string(text),
                [b'-' | b'0'..=b'9', ..] => {
                    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                    let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                    break rest.split_at(length);
                }
                [_, others @ ..] => others,
                [] => break (rest, rest),
            };
        };
        self.0.set(rest);
        number
    }
}

/// Returns the JSON after a string's closing quote.
fn after_string(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b'"', rest @ ..] => return rest,
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return text,
        };
    }
}

impl DecimalNumber {
    /// Parses a JSON number; `None` if its exponent does not fit in 64 bits.
    fn parse(number: &[u8]) -> Option<Self> {
        let is_exponent = |byte: &u8| matches!(byte, b'e' | b'E');
        let (mantissa, exponent) = match number.iter().position(is_exponent) {
            Some(place) => (&number[..place], std::str::from_utf8(&number[place + 1..]).ok()?),
            None => (number, "0"),
        };
        let places = mantissa.iter().position(|byte| *byte == b'.').map_or(0, |point| mantissa.len() - point - 1);
        let digits = mantissa.iter().copied().filter(u8::is_ascii_digit);
        let mut digits: Vec<_> = digits.skip_while(|digit| *digit == b'0').collect();
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits, exponent: 0 });
        }
        let length = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        let zeros = digits.len() - length;
        digits.truncate(length);
        let exponent = i128::from(exponent.parse::<i64>().ok()?) - places as i128 + zeros as i128;
        Some(Self { is_negative: mantissa.starts_with(b"-"), digits, exponent })
    }

    /// Returns the only notation of this number: plain if it is short, else with an exponent.
    fn notation(&self) -> Vec<u8> {
        const MAX_PLAIN_DIGITS: usize = 64;
        let mut text = if self.is_negative { vec![b'-'] } else { Vec::new() };
        let (digits, length) = (&self.digits[..], self.digits.len());
        // The number of digits before the point.
        let point = self.exponent + length as i128;
        match usize::try_from(point) {
            _ if digits.is_empty() => text.push(b'0'),
            Ok(point) if point >= length && point <= MAX_PLAIN_DIGITS => {
                text.extend_from_slice(digits);
                text.extend(std::iter::repeat_n(b'0', point - length));
            }
            Ok(point) if point > 0 && length <= MAX_PLAIN_DIGITS && point < length => {
                text.extend([&digits[..point], b".", &digits[point..]].concat());
            }
            _ if point <= 0 && length as i128 - point <= MAX_PLAIN_DIGITS as i128 => {
                text.extend_from_slice(b"0.");
                text.extend((point..0).map(|_| b'0'));
                text.extend_from_slice(digits);
            }
            _ => {
                text.extend_from_slice(digits);
                text.extend_from_slice(format!("e{}", self.exponent).as_bytes());
            }
        }
        text
    }
}

fn number(text: &[u8]) -> Digest {
    match DecimalNumber::parse(text) {
        Some(decimal) => hash("number", [&decimal.notation()[..]]),
        None => hash("number", [text]),
    }
}

fn begin(kind: &str) -> Sha256 {
    Sha256::new_with_prefix(kind).chain_update([0])
}

fn hash<'a>(kind: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hash = begin(kind);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Digest;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Digest, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
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

    fn visit_u64<E>(self, _: u64) -> Result<Digest, E> {
        Ok(number(self.0.next()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Digest, E> {
        Ok(number(self.0.next()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Digest, E> {
        Ok(number(self.0.next()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Digest, E> {
        Ok(hash("string", [value.as_bytes()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Digest, A::Error> {
        let mut hash = begin("list");
        while let Some(digest) = items.next_element_seed(self)? {
            hash.update(digest);
        }
        Ok(hash.finalize().into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Digest, A::Error> {
        let mut digests: Vec<(Digest, Digest)> = Vec::new();
        while let Some(field) = fields.next_entry_seed(self, self)? {
            digests.push(field);
            if digests.len() > MAX_SORTED_FIELDS {
                return self.large_object(&digests, fields);
            }
        }
        digests.sort_unstable();
        Ok(hash("object", digests.iter().flat_map(|(name, value)| [&name[..], &value[..]])))
    }
}

impl Value<'_> {
    /// Returns the digest of an object with these first fields, in order.
    fn large_object<'de, A: MapAccess<'de>>(
        self,
        first: &[(Digest, Digest)],
        mut others: A,
    ) -> Result<Digest, A::Error> {
        let mut hash = begin("large object");
        for (name, value) in first {
            hash.update(name);
            hash.update(value);
        }
        while let Some((name, value)) = others.next_entry_seed(self, self)? {
            hash.update(name);
            hash.update(value);
        }
        Ok(hash.finalize().into())
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

    #[test]
    fn numbers_are_equal_exactly_if_their_decimals_are() {
        let number = |text: &str| of(text.as_bytes());
        for same in [
            &["1.5", "1.50", "15e-1", "0.15E+1", "150e-2", "1.5e0"][..],
            &["0", "0.0", "-0", "0e9", "0.000e-99999999999999999"],
            &["-12000", "-12e3", "-1.2E4", "-12000.000"],
            &["0.0001", "1e-4", "0.00010"],
            &["1e300", "10e299", "0.1e301"],
            &["1e-200", "10e-201"],
            &["12345678901234567890.5", "123456789012345678905e-1"],
        ] {
            for one in same {
                assert_eq!(number(one), number(same[0]), "{one} and {}", same[0]);
            }
        }
        for (one, other) in [
            ("999999999999.9981", "999999999999.9980"),
            ("9007199254740993", "9007199254740992"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("18446744073709551617", "18446744073709551616"),
            ("1e-400", "0"),
            ("1e-400", "1e-401"),
            ("1e-9223372036854775809", "1e-9223372036854775810"),
        ] {
            assert_ne!(number(one), number(other), "{one} and {other}");
        }
    }

    #[test]
    fn each_number_is_read_from_its_own_place() {
        let one = of(br#"{"1": "2\"3", "-4": [5, "\\", 6.0], "e": {"7": -8e0, "9": true}, "10": 999999999999.9981}"#);
        let same = br#"{"1":"2\u00223","10":9999999999999981e-4,"e":{"9":true,"7":-8},"-4":[5,"\u005c",6]}"#;
        assert_eq!(of(same), one);
        for other in ["9999999999999980e-4", "9999999999999981e-3"] {
            let text = String::from_utf8_lossy(same).replace("9999999999999981e-4", other);
            assert_ne!(of(text.as_bytes()), one, "{text}");
        }
    }

    #[test]
    fn usual_bodies_keep_the_fingerprints_of_earlier_versions() {
        let body =
            br#"{"user_id": "u", "product_price": 19.90, "more": [1, -2.5, 1e21, null, false, [], {}], "z": 0.0001}"#;
        assert_eq!(hex::encode(of(body)), "6d9c45e3a3f92e38eab92c2de1c3f092b9d2d2878f710e953b37963aad94b1b6");
    }

    #[test]
    fn a_large_object_is_compared_in_order() {
        let fields = |numbers: &mut dyn Iterator<Item = usize>| {
            let fields: Vec<_> = numbers.map(|number| format!("\"{number}\":0")).collect();
            of(format!("{{{}}}", fields.join(",")).as_bytes())
        };
        assert_eq!(fields(&mut (0..256)), fields(&mut (0..256).rev()));
        let large = fields(&mut (0..257));
        assert_eq!(large, fields(&mut (0..257)));
        assert_ne!(large, fields(&mut (0..257).rev()));
        assert_ne!(large, fields(&mut (0..258)));
    }
}
