//! Writes data to stdout as table, JSON, NDJSON, CSV or ids, and messages to stderr.

use std::{
    io::{self, BufWriter, IsTerminal as _, Stdout, Write},
    iter,
};

use comfy_table::{Attribute, Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;

use super::{
    args::{Color, Format, Global},
    spreadsheet,
};
use crate::clock::Timestamp;

/// Minimum width of a terminal for wrapping cells.
const MIN_COLUMNS: u16 = 60;

/// A row of the output; `Serialize` writes the API's JSON.
pub(super) trait Row: Serialize {
    /// Column headings of the table.
    const COLUMNS: &'static [&'static str];
    /// Header fields of the CSV.
    const FIELDS: &'static [&'static str];
    /// Returns the id that `--quiet` prints.
    fn id(&self) -> String;
    /// Returns the table's cells.
    fn cells(&self) -> Vec<String>;
    /// Returns the CSV's fields.
    fn fields(&self) -> Vec<String>;
    /// Returns a single row as names and values.
    fn details(&self) -> Vec<(&'static str, String)> {
        Self::COLUMNS.iter().copied().zip(self.cells()).collect()
    }
}

/// A row with only an id.
#[derive(Serialize)]
pub(super) struct IdRow {
    /// The id.
    pub id: i64,
}

impl Row for IdRow {
    const COLUMNS: &'static [&'static str] = &["id"];
    const FIELDS: &'static [&'static str] = &["id"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id()]
    }

    fn fields(&self) -> Vec<String> {
        vec![self.id()]
    }
}

/// The output of a command.
pub(super) struct Console<W: Write = BufWriter<Stdout>> {
    out: W,
    format: Format,
    quiet: bool,
    /// Whether the output is a terminal.
    terminal: bool,
    color: bool,
}

impl Console {
    /// Creates a console on stdout from the flags.
    pub(super) fn new(global: &Global) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            out: BufWriter::new(io::stdout()),
            format: global.output,
            quiet: global.quiet,
            terminal,
            color: wants_color(global.color, terminal),
        }
    }
}

/// Returns whether output has colors, given whether it is a terminal.
pub(super) fn wants_color(color: Color, terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

impl<W: Write> Console<W> {
    /// Returns whether `--quiet` is set.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Returns the output format.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Prints a message to stderr, unless `--quiet`.
    pub(super) fn say(&self, sentence: &str) {
        if !self.quiet {
            // If stderr is closed, the message is lost.
            let _ = writeln!(io::stderr(), "{sentence}");
        }
    }

    /// Writes a line of data.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Writes a single item, such as the result of `get`.
    pub(super) fn single<R: Row>(&mut self, row: &R) -> io::Result<()> {
        if self.quiet {
            return self.line(&row.id());
        }
        match self.format {
            Format::Table => self.details(&row.details()),
            Format::Json if self.terminal => {
                serde_json::to_writer_pretty(&mut self.out, row)?;
                writeln!(self.out)
            }
            Format::Json | Format::Ndjson => self.json_line(row),
            Format::Csv => self.csv([R::FIELDS.iter().map(ToString::to_string).collect(), row.fields()]),
        }
    }

    /// Writes a value as one line of JSON.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        writeln!(self.out)
    }

    /// Writes names and values, one pair per line.
    pub(super) fn details(&mut self, details: &[(&str, String)]) -> io::Result<()> {
        let mut table = self.new_table();
        for (name, value) in details {
            table.add_row([Cell::new(name), self.cell(value)]);
        }
        self.write_table(table)
    }

    /// Writes a table.
    pub(super) fn table(&mut self, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
        let mut table = self.new_table();
        table.set_header(self.head(columns));
        for row in rows {
            table.add_row(row.iter().map(|text| self.cell(text)));
        }
        self.write_table(table)
    }

    /// Starts a list that is written page by page.
    pub(super) fn list(&mut self) -> List<'_, W> {
        List { console: self, begun: false, rows: 0, widths: Vec::new() }
    }

    /// Flushes the buffer.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn csv(&mut self, records: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(&mut self.out);
        for record in records {
            writer.write_record(record.into_iter().map(spreadsheet::cell))?;
        }
        writer.flush()
    }

    /// Creates a table without rules, so that successive pages look like one table.
    fn new_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }

    /// Creates a table that wraps cells to the width of the terminal.
    fn new_list(&self) -> Table {
        let mut table = self.new_table();
        if self.terminal && table.width().is_some_and(|width| width >= MIN_COLUMNS) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        table
    }

    fn head(&self, columns: &[&str]) -> Vec<Cell> {
        let cell = |column: &&str| Cell::new(column.to_uppercase());
        columns
            .iter()
            .map(cell)
            .map(|cell| if self.color { cell.add_attribute(Attribute::Bold) } else { cell })
            .collect()
    }

    /// Creates a cell; a status gets its color.
    fn cell(&self, text: &str) -> Cell {
        let cell = Cell::new(printable(text));
        if !self.color {
            return cell;
        }
        match text {
            "ready" | "yes" | "ok" => cell.fg(comfy_table::Color::Green),
            "processing" | "pending" => cell.fg(comfy_table::Color::Yellow),
            "failed" | "no" => cell.fg(comfy_table::Color::Red),
            _ => cell,
        }
    }

    fn write_table(&mut self, mut table: Table) -> io::Result<()> {
        if let Some(first) = table.column_mut(0) {
            first.set_padding((0, 1));
        }
        table.lines().try_for_each(|line| writeln!(self.out, "{}", line.trim_end()))
    }
}

/// A list that is written page by page; it keeps one page in memory.
pub(super) struct List<'a, W: Write = BufWriter<Stdout>> {
    console: &'a mut Console<W>,
    begun: bool,
    rows: u64,
    /// Column widths of the first page, which align the later pages.
    widths: Vec<u16>,
}

impl<W: Write> List<'_, W> {
    /// Writes the next page; a list needs at least one page, possibly empty.
    pub(super) fn page<R: Row>(&mut self, rows: &[R]) -> io::Result<()> {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.console.format {
            _ if self.console.quiet => rows.iter().try_for_each(|row| self.console.line(&row.id()))?,
            Format::Table => self.table_page(rows)?,
            Format::Json => {
                for (row, before) in rows.iter().zip(self.rows..) {
                    self.console.out.write_all(if before == 0 { b"{\"items\":[\n" } else { b",\n" })?;
                    serde_json::to_writer(&mut self.console.out, row)?;
                }
            }
            Format::Ndjson => rows.iter().try_for_each(|row| self.console.json_line(row))?,
            Format::Csv => {
                let head = first.then(|| R::FIELDS.iter().map(ToString::to_string).collect());
                self.console.csv(head.into_iter().chain(rows.iter().map(Row::fields)))?;
            }
        }
        self.rows += rows.len() as u64;
        // Flush, so that the reader of a pipe gets each page immediately.
        self.console.flush()
    }

    /// Ends the list; `next_cursor` is the start of the next page.
    pub(super) fn finish(self, next_cursor: Option<&str>) -> io::Result<()> {
        let (empty, console) = (self.rows == 0, self.console);
        if console.quiet {
            return Ok(());
        }
        if console.format == Format::Json {
            console.out.write_all(if empty { b"{\"items\":[" } else { b"\n" })?;
            console.out.write_all(b"],\"next_cursor\":")?;
            serde_json::to_writer(&mut console.out, &next_cursor)?;
            return console.out.write_all(b"}\n");
        }
        if empty && console.format == Format::Table {
            console.say("nothing found");
        }
        if let Some(cursor) = next_cursor {
            console.say(&format!("more rows: use --all or --cursor {cursor}"));
        }
        Ok(())
    }

    fn table_page<R: Row>(&mut self, rows: &[R]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let first = self.rows == 0;
        let mut table = self.console.new_list();
        if first {
            table.set_header(self.console.head(R::COLUMNS));
        }
        for row in rows {
            table.add_row(row.cells().iter().map(|text| self.console.cell(text)));
        }
        if first {
            self.widths = table.column_max_content_widths();
        } else {
            // Padding around the content: the first column has only the space after it.
            let spaces = iter::once(1).chain(iter::repeat(2));
            let widths = self.widths.iter().zip(spaces).map(|(content, spaces)| content + spaces);
            table.set_constraints(widths.map(|width| ColumnConstraint::LowerBoundary(Width::Fixed(width))));
        }
        self.console.write_table(table)
    }
}

/// Formats a timestamp for tables, without fractions of a second.
pub(super) fn seconds(moment: Timestamp) -> String {
    let text = moment.to_string();
    text.split_once('.').map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

/// Formats a count: `1 image`, `2 images`.
pub(super) fn image_count(count: u64) -> String {
    if count == 1 { "1 image".into() } else { format!("{count} images") }
}

/// Returns `text` on one line, without control characters.
fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests;
