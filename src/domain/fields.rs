//! Parses a JSON object field by field, so that one response lists all its errors.
//!
//! Time and memory grow linearly with the body, whatever it contains. Values of unknown fields are skipped, lists are
//! kept up to a limit, and errors beyond a limit are only counted.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// A field of a request and its error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field's name, with an index in a list: `product_images[2]`.
    /// Unknown names are cut after 100 characters.
    pub field: String,
    /// The error without its subject: `must not be empty`.
    pub message: String,
}

impl FieldError {
    const MAX_NAME_CHARS: usize = 100;

    /// Creates an error for `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut field = field.into();
        if let Some((end, _)) = field.char_indices().nth(Self::MAX_NAME_CHARS) {
            field.truncate(end);
        }
        Self { field, message: message.into() }
    }
}

/// Errors of a request: the first ones, and the number of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    more: usize,
}

impl FieldErrors {
    /// Maximum number of listed errors.
    pub const MAX_LISTED: usize = 20;

    /// Adds an error, which is only counted if the list is full.
    pub fn push(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.listed.len() < Self::MAX_LISTED {
            self.listed.push(FieldError::new(field, message));
        } else {
            self.more += 1;
        }
    }

    /// Adds the errors of lists that were parsed under another name.
    pub fn append(&mut self, other: Self) {
        let room = Self::MAX_LISTED.saturating_sub(self.listed.len());
        let unlisted = other.listed.len().saturating_sub(room);
        self.listed.extend(other.listed.into_iter().take(room));
        self.more += unlisted + other.more;
    }

    /// Returns the same errors with names and messages changed by `rewrite`.
    #[must_use]
    pub fn map(self, rewrite: impl FnMut(FieldError) -> FieldError) -> Self {
        Self { listed: self.listed.into_iter().map(rewrite).collect(), more: self.more }
    }

    /// Returns the first errors in the order of their detection.
    pub fn listed(&self) -> &[FieldError] {
        &self.listed
    }

    /// Returns how many errors are not listed.
    pub const fn more(&self) -> usize {
        self.more
    }

    /// Returns the number of errors.
    pub fn count(&self) -> usize {
        self.listed.len() + self.more
    }

    /// Returns whether there are no errors.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Returns whether an error of `field` is listed.
    pub fn name(&self, field: &str) -> bool {
        self.listed.iter().any(|error| error.field == field)
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.listed.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{} {}", error.field, error.message)?;
        }
        if self.more > 0 { write!(f, "; and {} more errors", self.more) } else { Ok(()) }
    }
}

/// All errors of a request; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{errors}")]
pub struct Invalid {
    /// The errors in the order of the request.
    pub errors: FieldErrors,
}

impl Invalid {
    /// Creates the error of a request with one invalid field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut errors = FieldErrors::default();
        errors.push(field, message);
        Self { errors }
    }

    /// Returns `value` if there are no errors.
    ///
    /// # Errors
    /// If `errors` has an entry.
    pub fn unless_empty<T>(errors: FieldErrors, value: impl FnOnce() -> T) -> Result<T, Self> {
        if errors.is_empty() { Ok(value()) } else { Err(Self { errors }) }
    }
}

impl From<FieldError> for Invalid {
    fn from(error: FieldError) -> Self {
        Self::field(error.field, error.message)
    }
}

/// The body is not a JSON object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        Self(format!("the body is not valid JSON: {error}"))
    }
}

/// The fields of a JSON object; each can be read once.
#[derive(Debug, Default)]
pub struct Fields {
    values: HashMap<&'static str, Box<RawValue>>,
    errors: FieldErrors,
    unknown: FieldErrors,
}

impl Fields {
    /// Parses the `known` fields of `json`. Duplicate and unknown fields are errors.
    ///
    /// # Errors
    /// If `json` is no JSON object; the message has the position of the syntax error.
    pub fn parse(json: &[u8], known: &[&'static str]) -> Result<Self, Malformed> {
        Self::parse_beside(json, known, &[])
    }

    /// Like [`Fields::parse`], but skips the `ignored` fields.
    ///
    /// # Errors
    /// See [`Fields::parse`].
    pub fn parse_beside(json: &[u8], known: &[&'static str], ignored: &[&str]) -> Result<Self, Malformed> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let fields = Known { known, ignored }.deserialize(&mut deserializer).map_err(|error| {
            if error.is_data() {
                Malformed(format!("the body must be a JSON object: {error}"))
            } else {
                Malformed::unreadable(&error)
            }
        })?;
        deserializer.end().map_err(|error| Malformed::unreadable(&error))?;
        Ok(fields)
    }

    /// Adds an error of `field`.
    pub fn error(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(field, message);
    }

    /// Takes a string; `null` counts as absent.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name)?;
        parse_text(&raw).map_err(|message| self.error(name, message)).ok()
    }

    /// Takes a string, or `otherwise` if it is absent.
    pub fn text_or(&mut self, name: &str, otherwise: Option<&str>) -> Option<String> {
        // A value of the wrong type is an error and is not replaced by the default.
        if self.has(name) { self.text(name) } else { otherwise.map(str::to_owned) }
    }

    /// Takes a field if it is `null`, which in a merge patch means removal; `false` otherwise.
    pub fn null(&mut self, name: &str) -> bool {
        let is_null = self.values.get(name).is_some_and(|value| value.get() == "null");
        is_null && self.values.remove(name).is_some()
    }

    /// Takes a number with the digits that the client wrote; `null` counts as absent.
    pub fn number(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name)?;
        if kind_of(raw.get()) == "a number" {
            return Some(raw.get().trim().to_owned());
        }
        self.error(name, format!("must be a number, not {}", kind_of(raw.get())));
        None
    }

    /// Takes a list of any values; `null` counts as absent.
    pub fn list(&mut self, name: &str) -> Option<List> {
        let raw = self.take(name)?;
        let list = serde_json::from_str(raw.get()).ok();
        if list.is_none() {
            self.error(name, format!("must be a list, not {}", kind_of(raw.get())));
        }
        list
    }

    /// Returns whether `field` has an error.
    pub fn is_wrong(&self, field: &str) -> bool {
        self.errors.name(field)
    }

    /// Takes a list of strings; `null` counts as absent. Wrong entries become errors with their index.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let raw = self.take(name)?;
        let Ok(list) = serde_json::from_str::<List>(raw.get()) else {
            self.error(name, format!("must be a list of strings, not {}", kind_of(raw.get())));
            return None;
        };
        if list.len > List::MAX_ITEMS {
            self.error(name, format!("has {} entries; at most {} are allowed", list.len, List::MAX_ITEMS));
            return None;
        }
        let mut texts = Vec::with_capacity(list.len);
        for (index, item) in list.items.iter().enumerate() {
            match parse_text(item) {
                Ok(text) => texts.push(text),
                Err(message) => self.error(&format!("{name}[{index}]"), message),
            }
        }
        Some(texts)
    }

    /// Finishes parsing and returns all errors, those of unknown fields last.
    pub fn finish(mut self) -> FieldErrors {
        self.errors.append(self.unknown);
        self.errors
    }

    /// Returns whether the field has a value other than `null`.
    fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.get() != "null")
    }

    fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.values.remove(name).filter(|value| value.get() != "null")
    }
}

/// A JSON list with its first entries.
#[derive(Debug, Default)]
pub struct List {
    /// The first [`MAX_ITEMS`](Self::MAX_ITEMS) entries.
    pub items: Vec<Box<RawValue>>,
    /// The number of entries in the body.
    pub len: usize,
}

impl List {
    /// Maximum number of kept entries.
    pub const MAX_ITEMS: usize = 1_000;
}

fn parse_text(raw: &RawValue) -> Result<String, String> {
    serde_json::from_str(raw.get()).map_err(|_| match kind_of(raw.get()) {
        // The parser accepts a string with an unpaired surrogate escape, but cannot decode it.
        "a string" => "must not contain an unpaired surrogate escape such as \\ud83d".into(),
        other => format!("must be a string, not {other}"),
    })
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

/// Parses an object: keeps the values of known fields and reports other fields unless they are ignored.
struct Known<'a> {
    known: &'a [&'static str],
    ignored: &'a [&'a str],
}

impl<'de> DeserializeSeed<'de> for Known<'_> {
    type Value = Fields;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Known<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let unknown = format!("is not a known field; known are {}", self.known.join(", "));
        while let Some(name) = map.next_key::<String>()? {
            let Some(known) = self.known.iter().find(|known| **known == name) else {
                map.next_value::<IgnoredAny>()?;
                if !self.ignored.contains(&name.as_str()) {
                    fields.unknown.push(name, unknown.as_str());
                }
                continue;
            };
            let value = map.next_value()?;
            if fields.values.contains_key(known) {
                fields.error(known, "is given more than once");
            } else {
                fields.values.insert(known, value);
            }
        }
        Ok(fields)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<List, A::Error> {
                let mut list = List::default();
                while list.items.len() < List::MAX_ITEMS {
                    let Some(entry) = entries.next_element()? else { return Ok(list) };
                    list.items.push(entry);
                    list.len += 1;
                }
                while entries.next_element::<IgnoredAny>()?.is_some() {
                    list.len += 1;
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_unknown_and_mistyped_fields_are_reported_together() {
        let mut fields =
            Fields::parse(br#"{"a": 1, "a": 2, "b": [1, "x"], "c": true}"#, &["a", "b"]).expect("an object");
        assert_eq!(fields.text("a"), None);
        assert_eq!(fields.texts("b"), Some(vec!["x".to_owned()]));
        let errors = fields.finish();
        let named: Vec<_> = errors.listed().iter().map(|e| e.field.as_str()).collect();
        assert_eq!(named, ["a", "a", "b[0]", "c"]);
    }

    #[test]
    fn a_number_keeps_its_digits() {
        let mut fields = Fields::parse(br#"{"price": 19.90}"#, &["price"]).expect("an object");
        assert_eq!(fields.number("price").as_deref(), Some("19.90"));
    }

    #[test]
    fn a_json_syntax_error_has_its_position() {
        let error = Fields::parse(b"{\"a\": }", &["a"]).expect_err("no JSON").to_string();
        assert!(error.contains("line 1 column 7"), "{error}");
        assert!(Fields::parse(b"[]", &[]).expect_err("no object").to_string().contains("must be a JSON object"));
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let mut fields = Fields::parse(deep.as_bytes(), &["a"]).unwrap_or_default();
        assert_eq!(fields.text("a"), None);
    }

    #[test]
    fn twenty_errors_are_listed_and_the_others_counted() {
        let many: Vec<_> = (0..70_000).map(|number| format!("\"k{number}\": {number}")).collect();
        let text = format!("{{{}, \"a\": 1}}", many.join(", "));
        let mut fields = Fields::parse(text.as_bytes(), &["a"]).expect("an object");
        assert_eq!(fields.text("a"), None);
        let errors = fields.finish();
        assert_eq!((errors.listed().len(), errors.more(), errors.count()), (20, 69_981, 70_001));
        // Errors of known fields are listed before unknown fields.
        assert_eq!(errors.listed()[0].field, "a");
        assert!(errors.to_string().ends_with("; and 69981 more errors"), "{errors}");
    }

    #[test]
    fn a_long_unknown_field_name_is_cut() {
        let name = "ä".repeat(5_000);
        let fields = Fields::parse(format!("{{\"{name}\": 1}}").as_bytes(), &[]).expect("an object");
        assert_eq!(fields.finish().listed()[0].field, "ä".repeat(100));
    }

    #[test]
    fn an_unpaired_surrogate_is_reported_as_such() {
        let mut fields = Fields::parse(br#"{"a": "cut \ud83d", "b": ["\udc00"]}"#, &["a", "b"]).expect("an object");
        assert_eq!(fields.text("a"), None);
        assert_eq!(fields.texts("b"), Some(Vec::new()));
        for error in fields.finish().listed() {
            assert!(error.message.contains("unpaired surrogate"), "{error:?}");
        }
    }

    #[test]
    fn a_list_is_kept_up_to_a_limit() {
        let text = format!("{{\"a\": [{}1]}}", "1,".repeat(100_000));
        let mut fields = Fields::parse(text.as_bytes(), &["a"]).expect("an object");
        assert_eq!(fields.texts("a"), None);
        assert_eq!(fields.finish().listed()[0].message, "has 100001 entries; at most 1000 are allowed");
    }
}
