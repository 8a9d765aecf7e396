//! Limits the number of distinct list lengths in statements.
//!
//! Each length is a separate statement, and connections cache prepared statements. Arbitrary lengths would fill the
//! cache with statements that are rarely reused.

/// Maximum rows in one `INSERT`.
pub(super) const MAX_ROWS: usize = 64;

/// Lists up to this length are not padded; longer ones are padded to a power of two.
const EVERY_LENGTH: usize = 8;

/// Splits rows into parts with few distinct lengths, at most [`MAX_ROWS`] each.
pub(super) fn parts<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let length = match left.len() {
            0 => return None,
            length @ 1..=EVERY_LENGTH => length,
            length => (1 << length.ilog2()).min(MAX_ROWS),
        };
        let (part, rest) = left.split_at(length);
        left = rest;
        Some(part)
    })
}

/// Pads a list for `IN` to one of few lengths.
/// It repeats the last value, which does not change the result.
pub(super) fn padded<T: Clone>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    if values.len() > EVERY_LENGTH
        && let Some(last) = values.last().cloned()
    {
        values.resize(values.len().next_power_of_two(), last);
    }
    values
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_of_any_number_are_split_into_parts_of_few_lengths() {
        let rows: Vec<usize> = (0..1_000).collect();
        let mut lengths = BTreeSet::new();
        for count in 0..=rows.len() {
            let parts: Vec<&[usize]> = parts(&rows[..count]).collect();
            lengths.extend(parts.iter().map(|part| part.len()));
            assert_eq!(parts.concat(), rows[..count]);
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64]);
    }

    #[test]
    fn a_list_is_padded_with_its_last_value() {
        assert_eq!(padded(Vec::<i64>::new()), Vec::<i64>::new());
        assert_eq!(padded(1..=8), (1..=8).collect::<Vec<_>>());
        assert_eq!(padded(1..=9), [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9]);
        let lengths: BTreeSet<usize> = (0..=1_000).map(|count| padded(0..count).len()).collect();
        assert_eq!(lengths.len(), 9 + 7);
    }
}
