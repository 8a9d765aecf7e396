//! Cursors of list pages: opaque to clients, valid for one sort order.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::domain::{ProductId, Sort, SortKey};

/// The last row of a page: its sort value, and its id as the tie-breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The sort order of the list.
    pub sort: Sort,
    /// The row's value in the sort column.
    pub key: CursorKey,
    /// The row's id.
    pub id: ProductId,
}

/// A value of a sort column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorKey {
    /// The list is sorted by id alone.
    None,
    /// A price, a time in microseconds, or the number of a relevance tier.
    Number(i64),
    /// A name.
    Text(String),
}

impl Cursor {
    /// Encodes the cursor for clients.
    pub fn encode(&self) -> String {
        let key = match &self.key {
            CursorKey::None => Value::Null,
            CursorKey::Number(number) => json!(number),
            CursorKey::Text(text) => json!(text),
        };
        URL_SAFE_NO_PAD.encode(json!([self.sort.to_string(), key, self.id.0]).to_string())
    }

    /// Decodes a cursor for a list in the order `sort`.
    ///
    /// # Errors
    /// A message if the cursor is malformed or has another order.
    pub fn decode(text: &str, sort: Sort) -> Result<Self, String> {
        const MADE_UP: &str = "is not a cursor of this list";
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| MADE_UP)?;
        let (order, key, id): (String, Value, i64) = serde_json::from_slice(&bytes).map_err(|_| MADE_UP)?;
        let order = Sort::of_cursor(&order).ok_or(MADE_UP)?;
        if order != sort {
            return Err(format!("is a cursor of a list sorted by `{order}`, not `{sort}`"));
        }
        let key = match (sort.key, key) {
            (SortKey::Id, Value::Null) => CursorKey::None,
            (SortKey::Name, Value::String(name)) if !name.contains('\0') => CursorKey::Text(name),
            (SortKey::Price | SortKey::CreatedAt | SortKey::Relevance, Value::Number(number)) => {
                CursorKey::Number(number.as_i64().ok_or(MADE_UP)?)
            }
            _ => return Err(MADE_UP.into()),
        };
        Ok(Self { sort, key, id: ProductId(id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_of_another_order_is_rejected() {
        let by_price = Sort { key: SortKey::Price, descending: true };
        let cursor = Cursor { sort: by_price, key: CursorKey::Number(5), id: ProductId(1) };
        assert_eq!(Cursor::decode(&cursor.encode(), by_price), Ok(cursor.clone()));
        let ascending = Sort { key: SortKey::Price, descending: false };
        assert!(Cursor::decode(&cursor.encode(), ascending).expect_err("another order").contains("-product_price"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_rejected_without_a_panic(text in ".{0,60}") {
            prop_assert!(Cursor::decode(&text, Sort::default()).is_err());
        }

        #[test]
        fn every_cursor_decodes_to_the_same_value(name in "[^\0]{0,30}", id: i64) {
            let sort = Sort { key: SortKey::Name, descending: false };
            let cursor = Cursor { sort, key: CursorKey::Text(name), id: ProductId(id) };
            prop_assert_eq!(Cursor::decode(&cursor.encode(), sort), Ok(cursor));
        }
    }
}
