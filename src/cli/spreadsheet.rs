//! Cells of CSV that no spreadsheet takes for a formula.
//!
//! A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe before it, unless it is a plain
//! number. A cell that begins like that after apostrophes of its own gets one more, so a reader undoes it without doubt: it
//! removes one apostrophe where apostrophes stand before one of these characters.

/// Returns `text` as a cell that a spreadsheet shows and does not run.
pub(super) fn cell(text: String) -> String {
    let behind = text.trim_start_matches('\'');
    let is_formula = behind.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let is_number = behind.len() == text.len() && is_number(&text);
    if is_formula && !is_number { format!("'{text}") } else { text }
}

/// Whether `text` is digits with at most one point among them, perhaps after a minus sign.
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

    /// What a reader does.
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
        fn a_reader_undoes_it_and_no_cell_begins_like_a_formula(text in "['=+@\t\r0-9.a-]{0,6}|\\PC{0,12}") {
            let written = cell(text.clone());
            prop_assert_eq!(undone(&written), &text);
            prop_assert!(is_number(&written) || !written.starts_with(RISKY), "{:?}", written);
        }
    }
}
