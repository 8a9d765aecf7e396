//! Fuzzes cursors: any text is refused or decodes to a cursor that encodes to the same position.

#![no_main]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use pm::domain::{Cursor, CursorKey, ProductId, ProductQuery, Sort, UserId, UserQuery};
use pm_fuzz::write_seeds;

const ORDERS: [&str; 8] =
    ["id", "-id", "product_price", "-product_price", "product_name", "-product_name", "created_at", "-created_at"];

fn order(number: usize) -> Sort {
    Sort::parse(ORDERS[number % ORDERS.len()]).expect("every one is known")
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let keys =
        [CursorKey::None, CursorKey::Number(-5), CursorKey::Text("é\u{1F600}\"".into()), CursorKey::Number(i64::MAX)];
    let with_order = |(number, name): (usize, &&str)| {
        let cursor = Cursor { sort: order(number), key: keys[number / 2].clone(), id: ProductId(i64::MIN) };
        let text = cursor.encode();
        let json = URL_SAFE_NO_PAD.decode(&text).expect("a cursor is base64");
        let led = |marks: u8, rest: &[u8]| [&[number as u8 | marks], rest].concat();
        [(format!("{name}.text"), led(0, text.as_bytes())), (format!("{name}.json"), led(0x80, &json))]
    };
    ORDERS.iter().enumerate().flat_map(with_order).collect()
}

/// A page that ends at the cursor's row must return the same cursor.
fn reads_back(text: &str, sort: Sort) {
    let Ok(cursor) = Cursor::decode(text, sort) else { return };
    assert_eq!(cursor.sort, sort);
    let again = Cursor::decode(&cursor.encode(), sort).expect("it decodes its own encoding");
    assert_eq!(again, cursor);
    let other = ORDERS.into_iter().filter_map(Sort::parse).find(|other| *other != sort).expect("there are eight");
    assert!(Cursor::decode(text, other).is_err(), "a cursor of {sort} was accepted for {other}");
    let order = sort.to_string();
    let query = ProductQuery::parse([("sort", order.as_str()), ("cursor", text)]).expect("its list accepts it");
    assert_eq!(query.cursor, Some(cursor));
}

fn every_key_reads_back(text: &str, number: i64, sort: Sort) {
    let keys = [CursorKey::None, CursorKey::Number(number), CursorKey::Text(text.replace('\0', ""))];
    for key in keys {
        let cursor = Cursor { sort, key, id: ProductId(number) };
        if let Ok(read) = Cursor::decode(&cursor.encode(), sort) {
            assert_eq!(read, cursor);
        }
    }
}

fn users_read_back(text: &str) {
    if let Ok(query) = UserQuery::parse([("cursor", text)]) {
        let after = query.after.expect("a cursor was returned");
        let again = UserQuery::encode_cursor(&after);
        let read = UserQuery::parse([("cursor", again.as_str())]).expect("it decodes its own encoding");
        assert_eq!(read.after, Some(after));
    }
    if let Ok(id) = UserId::parse(text) {
        let cursor = UserQuery::encode_cursor(&id);
        assert_eq!(UserQuery::parse([("cursor", cursor.as_str())]).expect("a cursor").after, Some(id));
    }
}

fuzz_target!(
    init: write_seeds(seeds()),
    |input: &[u8]| {
        let Some((&lead, rest)) = input.split_first() else { return };
        let sort = order(usize::from(lead & 0x7f));
        // Half of the inputs are the decoded content of a cursor, since base64 hides its structure from the fuzzer.
        let text = if lead & 0x80 == 0 { String::from_utf8_lossy(rest).into_owned() } else { URL_SAFE_NO_PAD.encode(rest) };
        reads_back(&text, sort);
        users_read_back(&text);
        let number = rest.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        every_key_reads_back(&String::from_utf8_lossy(rest), number, sort);
    }
);
