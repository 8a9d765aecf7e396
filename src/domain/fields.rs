//! Reading a JSON object field by field, so that one answer names everything that is wrong with it.

use std::fmt;

use serde::{
    Deserialize, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// One field of a request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field's name, with an index where it is a list: `product_images[2]`.
    pub field: String,
    /// A sentence without its subject: `must not be empty`.
    pub message: String,
}

/// Everything that is wrong with a request; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(.errors))]
pub struct Invalid {
    /// The wrong fields in the order of the request.
    pub errors: Vec<FieldError>,
}

fn describe(errors: &[FieldError]) -> String {
    errors.iter().map(|e| format!("{} {}", e.field, e.message)).collect::<Vec<_>>().join("; ")
}

impl Invalid {
    /// A request with one wrong field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { errors: vec![FieldError { field: field.into(), message: message.into() }] }
    }

    /// `value` if nothing is wrong, else all that is.
    ///
    /// # Errors
    /// If `errors` has an entry.
    pub fn unless_empty<T>(errors: Vec<FieldError>, value: impl FnOnce() -> T) -> Result<T, Self> {
        if errors.is_empty() { Ok(value()) } else { Err(Self { errors }) }
    }
}

/// The text is no JSON object at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        Self(format!("the body is not valid JSON: {error}"))
    }
}

/// The fields of one JSON object; each is taken once, and what is left over at the end is unknown.
#[derive(Debug, Default)]
pub struct Fields {
    entries: Vec<(String, Box<RawValue>)>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Splits `json` into its fields; a field that stands twice is noted as an error.
    ///
    /// # Errors
    /// If `json` is no JSON object: the sentence says where it breaks.
    pub fn parse(json: &[u8]) -> Result<Self, Malformed> {
        let raw: RawObject = serde_json::from_slice(json).map_err(|error| {
            if error.is_data() {
                Malformed(format!("the body must be a JSON object: {error}"))
            } else {
                Malformed::unreadable(&error)
            }
        })?;
        let mut fields = Self::default();
        for (name, value) in raw.0 {
            if fields.entries.iter().any(|(known, _)| *known == name) {
                fields.error(&name, "stands more than once");
            } else {
                fields.entries.push((name, value));
            }
        }
        Ok(fields)
    }

    /// Notes that something is wrong with `field`.
    pub fn error(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
    }

    /// Takes a text; `null` counts as not given.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name)?;
        match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => Some(text),
            Err(_) => {
                self.error(name, format!("must be a string, not {}", kind_of(raw.get())));
                None
            }
        }
    }

    /// Takes a text, or `otherwise` if none was given.
    pub fn text_or(&mut self, name: &str, otherwise: Option<&str>) -> Option<String> {
        let errors = self.errors.len();
        let given = self.text(name);
        // A value of another kind is an error of its own, and nothing takes its place.
        if given.is_none() && self.errors.len() == errors { otherwise.map(str::to_owned) } else { given }
    }

    /// Takes a field that is `null`, which a merge patch has for what is to be removed; `false` if it is anything else.
    pub fn null(&mut self, name: &str) -> bool {
        let nulls = |(known, value): &(String, Box<RawValue>)| known == name && value.get() == "null";
        let position = self.entries.iter().position(nulls);
        position.map(|position| self.entries.remove(position)).is_some()
    }

    /// Takes a number as the digits that the client wrote; `null` counts as not given.
    pub fn number(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name)?;
        if kind_of(raw.get()) == "a number" {
            return Some(raw.get().trim().to_owned());
        }
        self.error(name, format!("must be a number, not {}", kind_of(raw.get())));
        None
    }

    /// Takes a list of anything; `null` counts as not given.
    pub fn list(&mut self, name: &str) -> Option<Vec<Box<RawValue>>> {
        let raw = self.take(name)?;
        let items = serde_json::from_str(raw.get()).ok();
        if items.is_none() {
            self.error(name, format!("must be a list, not {}", kind_of(raw.get())));
        }
        items
    }

    /// Whether something was noted about `field`.
    pub fn is_wrong(&self, field: &str) -> bool {
        self.errors.iter().any(|error| error.field == field)
    }

    /// Takes a list of texts; `null` counts as not given. A wrong entry is noted with its index and left out.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let raw = self.take(name)?;
        let Ok(items) = serde_json::from_str::<Vec<Box<RawValue>>>(raw.get()) else {
            self.error(name, format!("must be a list of strings, not {}", kind_of(raw.get())));
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match serde_json::from_str::<String>(item.get()) {
                Ok(text) => texts.push(text),
                Err(_) => {
                    let message = format!("must be a string, not {}", kind_of(item.get()));
                    self.error(&format!("{name}[{index}]"), message);
                }
            }
        }
        Some(texts)
    }

    /// Ends the reading: every field that nobody took is unknown. `known` is the list a client could have meant.
    pub fn finish(mut self, known: &[&str]) -> Vec<FieldError> {
        for (name, _) in std::mem::take(&mut self.entries) {
            self.error(&name, format!("is not a known field; known are {}", known.join(", ")));
        }
        self.errors
    }

    fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        let position = self.entries.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.entries.remove(position);
        (value.get() != "null").then_some(value)
    }
}

fn kind_of(json: &str) -> &'static str {
    match json.trim_start().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// An object's fields in order, duplicates included, which no map type of serde keeps.
struct RawObject(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(RawObject(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_duplicate_unknown_and_mistyped_fields_at_once() {
        let mut fields = Fields::parse(br#"{"a": 1, "a": 2, "b": [1, "x"], "c": true}"#).expect("an object");
        assert_eq!(fields.text("a"), None);
        assert_eq!(fields.texts("b"), Some(vec!["x".to_owned()]));
        let errors = fields.finish(&["a", "b"]);
        let named: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(named, ["a", "a", "b[0]", "c"]);
    }

    #[test]
    fn keeps_the_digits_of_a_number() {
        let mut fields = Fields::parse(br#"{"price": 19.90}"#).expect("an object");
        assert_eq!(fields.number("price").as_deref(), Some("19.90"));
    }

    #[test]
    fn says_where_json_breaks() {
        let error = Fields::parse(b"{\"a\": }").expect_err("no JSON").to_string();
        assert!(error.contains("line 1 column 7"), "{error}");
        assert!(Fields::parse(b"[]").expect_err("no object").to_string().contains("must be a JSON object"));
    }

    #[test]
    fn survives_deep_nesting() {
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let mut fields = Fields::parse(deep.as_bytes()).unwrap_or_default();
        assert_eq!(fields.text("a"), None);
    }
}
