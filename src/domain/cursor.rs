//! Where a page of a list ended: opaque to clients, bound to the list's order.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::domain::{ProductId, Sort, SortKey};

/// The last row of a page: the value it is sorted by, and its id as the tie-breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The order of the list that answered it.
    pub sort: Sort,
    /// The row's value in the column of the order.
    pub key: CursorKey,
    /// The row's id.
    pub id: ProductId,
}

/// A value of a column that lists are sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorKey {
    /// Sorted by id alone.
    None,
    /// A price in its units, a time in microseconds, or the step of a fit.
    Number(i64),
    /// A name.
    Text(String),
}

impl Cursor {
    /// The cursor as clients carry it.
    pub fn encode(&self) -> String {
        let key = match &self.key {
            CursorKey::None => Value::Null,
            CursorKey::Number(number) => json!(number),
            CursorKey::Text(text) => json!(text),
        };
        URL_SAFE_NO_PAD.encode(json!([self.sort.to_string(), key, self.id.0]).to_string())
    }

    /// Reads a cursor for a list in the order `sort`.
    ///
    /// # Errors
    /// A sentence: no cursor that a list answered, or one of another order.
    pub fn decode(text: &str, sort: Sort) -> Result<Self, String> {
        const MADE_UP: &str = "is not a cursor that a list answered";
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| MADE_UP)?;
        let (order, key, id): (String, Value, i64) = serde_json::from_slice(&bytes).map_err(|_| MADE_UP)?;
        let order = Sort::of_cursor(&order).ok_or(MADE_UP)?;
        if order != sort {
            return Err(format!("belongs to a list sorted by `{order}`, not `{sort}`"));
        }
        let key = match (sort.key, key) {
            (SortKey::Id, Value::Null) => CursorKey::None,
            (SortKey::Name, Value::String(name)) if !name.contains('\0') => CursorKey::Text(name),
            (SortKey::Price | SortKey::CreatedAt | SortKey::Fit, Value::Number(number)) => {
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
    fn a_cursor_of_another_order_is_refused() {
        let by_price = Sort { key: SortKey::Price, descending: true };
        let cursor = Cursor { sort: by_price, key: CursorKey::Number(5), id: ProductId(1) };
        assert_eq!(Cursor::decode(&cursor.encode(), by_price), Ok(cursor.clone()));
        let ascending = Sort { key: SortKey::Price, descending: false };
        assert!(Cursor::decode(&cursor.encode(), ascending).expect_err("another order").contains("-product_price"));
    }

    proptest! {
        #[test]
        fn made_up_text_is_refused_without_a_panic(text in ".{0,60}") {
            prop_assert!(Cursor::decode(&text, Sort::default()).is_err());
        }

        #[test]
        fn every_cursor_reads_back(name in "[^\0]{0,30}", id: i64) {
            let sort = Sort { key: SortKey::Name, descending: false };
            let cursor = Cursor { sort, key: CursorKey::Text(name), id: ProductId(id) };
            prop_assert_eq!(Cursor::decode(&cursor.encode(), sort), Ok(cursor));
        }
    }
}
