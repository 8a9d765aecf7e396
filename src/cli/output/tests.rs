//! Tests of one list in every format.

use super::*;

#[derive(Serialize)]
struct Thing {
    id: u32,
    name: &'static str,
    status: &'static str,
}

impl Row for Thing {
    const COLUMNS: &'static [&'static str] = &["id", "name", "status"];
    const FIELDS: &'static [&'static str] = &["id", "name", "status"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id.to_string(), self.name.into(), self.status.into()]
    }

    fn fields(&self) -> Vec<String> {
        self.cells()
    }
}

const THINGS: [Thing; 3] = [
    Thing { id: 1, name: "Sample, \"quoted\"", status: "ready" },
    Thing { id: 2, name: "two\nlines \u{1b}[31m", status: "failed" },
    Thing { id: 3, name: "ü", status: "processing" },
];

fn console(format: Format, quiet: bool, color: bool) -> Console<Vec<u8>> {
    Console { out: Vec::new(), format, quiet, terminal: false, color }
}

/// Writes the rows on two pages.
fn listed(format: Format, quiet: bool) -> String {
    let mut console = console(format, quiet, false);
    let mut list = console.list();
    list.page(&THINGS[..2]).expect("memory takes all");
    list.page(&THINGS[2..]).expect("memory takes all");
    list.finish(Some("abc")).expect("memory takes all");
    String::from_utf8(console.out).expect("UTF-8")
}

#[test]
fn a_table_in_a_pipe_has_no_escape_sequences_and_its_pages_are_aligned() {
    let expected = "\
ID  NAME              STATUS
1   Sample, \"quoted\"  ready
2   two lines \u{fffd}[31m   failed
3   ü                 processing
";
    assert_eq!(listed(Format::Table, false), expected);
}

#[test]
fn json_is_one_document_over_all_pages() {
    let text = listed(Format::Json, false);
    let value: serde_json::Value = serde_json::from_str(&text).expect("one document");
    assert_eq!(value["next_cursor"], "abc");
    let ids: Vec<_> = value["items"].as_array().expect("a list").iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn ndjson_csv_and_ids_have_one_line_per_row() {
    assert_eq!(listed(Format::Ndjson, false).lines().last(), Some(r#"{"id":3,"name":"ü","status":"processing"}"#));
    assert_eq!(
        listed(Format::Csv, false),
        "id,name,status\n1,\"Sample, \"\"quoted\"\"\",ready\n2,\"two\nlines \u{1b}[31m\",failed\n3,ü,processing\n"
    );
    assert_eq!(listed(Format::Csv, true), "1\n2\n3\n");
}

#[test]
fn an_empty_list_is_well_formed_in_every_format() {
    for (format, expected) in [
        (Format::Table, ""),
        (Format::Json, "{\"items\":[],\"next_cursor\":null}\n"),
        (Format::Ndjson, ""),
        (Format::Csv, "id,name,status\n"),
    ] {
        let mut console = console(format, false, false);
        let mut list = console.list();
        list.page::<Thing>(&[]).expect("memory takes all");
        list.finish(None).expect("memory takes all");
        assert_eq!(String::from_utf8(console.out).expect("UTF-8"), expected, "{format:?}");
    }
}

#[test]
fn a_status_has_a_color_only_if_colors_are_enabled() {
    for color in [false, true] {
        let mut console = console(Format::Table, false, color);
        console.single(&THINGS[0]).expect("memory takes all");
        let text = String::from_utf8(console.out).expect("UTF-8");
        assert_eq!(text.contains("\u{1b}["), color, "{text:?}");
    }
    assert!(wants_color(Color::Always, false) && !wants_color(Color::Never, true) && !wants_color(Color::Auto, false));
}
