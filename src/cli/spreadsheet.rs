//! Escapes CSV cells so that no spreadsheet runs them as formulas.
//!
//! A cell that starts with `=`, `+`, `-`, `@`, a tab or a carriage return gets a leading apostrophe, unless it is a
//! plain number. A cell that starts with apostrophes before such a character gets one more, so that the escape is
//! reversible: a reader removes one apostrophe if apostrophes precede such a character.

/// Escapes `text` so that a spreadsheet shows it and does not run it.
pub(super) fn cell(text: String) -> String {
    let behind = text.trim_start_matches('\'');
    let is_formula = behind.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let is_number = behind.len() == text.len() && is_number(&text);
    if is_formula && !is_number { format!("'{text}") } else { text }
}

/// Returns whether `text` is a decimal number, optionally negative.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RISKY: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

    /// Reverses the escape.
    fn undone(cell: &str) -> &str {
        let behind = cell.trim_start_matches('\'');
        if behind.starts_with(RISKY) { cell.strip_prefix('\'').unwrap_or(cell) } else { cell }
    }

    #[test]
    fn formulas_are_quoted_and_numbers_stay_numbers() {
        for (text, expected) in [
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"http://x\")", "'=HYPERLINK(\"http://x\")"),
            ("+49 30 1234", "'+49 30 1234"),
            ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("'=1", "''=1"),
            ("-", "'-"),
            ("-5.", "'-5."),
            ("-19.99", "-19.99"),
            ("-5", "-5"),
            ("19.99", "19.99"),
            ("'quoted'", "'quoted'"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(cell(text.into()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn escaping_is_reversible_and_no_cell_starts_like_a_formula(text in "['=+@\t\r0-9.a-]{0,6}|\\PC{0,12}") {
            let written = cell(text.clone());
            prop_assert_eq!(undone(&written), &text);
            prop_assert!(is_number(&written) || !written.starts_with(RISKY), "{:?}", written);
        }
    }
}
