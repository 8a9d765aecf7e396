//! Files of rows: one JSON object per line, with a hash of the whole file.
//!
//! Files are written and read one page at a time. Each line ends with its own checksum, `"#"`, so the intact rows of a
//! damaged file can be recognized.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::{Error, PAGE, PLAIN_FORMAT};
use crate::{db::maintenance::transfer::Row, private_files};

/// Writes a file of rows.
pub(super) struct RowWriter {
    file: tokio::fs::File,
    path: PathBuf,
    hash: Sha256,
    rows: u64,
}

/// Reads a file of rows. A missing file has no rows.
pub(super) struct RowReader {
    lines: Option<BufReader<tokio::fs::File>>,
    path: PathBuf,
    /// Whether lines have checksums.
    summed: bool,
    /// Number of damaged lines so far.
    pub damaged: u64,
}

/// Maximum length of a row.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Maximum size of a page, exceeded by at most one row.
const PAGE_BYTES: usize = 16 << 20;
/// Number of hex digits of a row's checksum: the first quarter of a SHA-256.
const SUM_DIGITS: usize = 16;
const SUM_BEGINS: &[u8] = b",\"#\":\"";
const SUM_ENDS: &[u8] = b"\"}";

impl RowWriter {
    pub(super) async fn create(path: PathBuf) -> Result<Self, Error> {
        let options =
            tokio::fs::OpenOptions::from(private_files::options()).write(true).create(true).truncate(true).clone();
        let file = options.open(&path).await.map_err(Error::of(&path))?;
        Ok(Self { file, path, hash: Sha256::new(), rows: 0 })
    }

    pub(super) async fn write(&mut self, rows: &[Row]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for row in rows {
            let begin = bytes.len();
            serde_json::to_writer(&mut bytes, row).map_err(|error| Error::of(&self.path)(error.into()))?;
            bytes.pop();
            let sum = sum(&bytes[begin..]);
            for part in [SUM_BEGINS, sum.as_bytes(), SUM_ENDS, b"\n"] {
                bytes.extend_from_slice(part);
            }
        }
        self.hash.update(&bytes);
        self.rows += rows.len() as u64;
        self.file.write_all(&bytes).await.map_err(Error::of(&self.path))
    }

    /// Syncs the file; returns the number of rows and the SHA-256 of the file in hex.
    pub(super) async fn finish(mut self) -> Result<(u64, String), Error> {
        self.file.flush().await.map_err(Error::of(&self.path))?;
        self.file.sync_all().await.map_err(Error::of(&self.path))?;
        Ok((self.rows, hex::encode(self.hash.finalize())))
    }
}

impl RowReader {
    /// Opens a file of a backup of this format.
    pub(super) async fn open(path: PathBuf, format: u32) -> Result<Self, Error> {
        let lines = match tokio::fs::File::open(&path).await {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::of(&path)(error)),
        };
        Ok(Self { lines, path, summed: format != PLAIN_FORMAT, damaged: 0 })
    }

    /// Returns the next intact rows, none at the end. Counts damaged lines.
    pub(super) async fn page(&mut self) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        let Some(lines) = &mut self.lines else { return Ok(rows) };
        let (mut line, mut bytes) = (Vec::new(), 0);
        while rows.len() < PAGE && bytes < PAGE_BYTES {
            let is_whole = match next_line(lines, &mut line).await.map_err(Error::of(&self.path))? {
                Line::End => break,
                Line::Read => true,
                Line::TooLong => false,
            };
            bytes += line.len();
            match parse(&line, self.summed).filter(|_| is_whole) {
                Some(row) => rows.push(row),
                None => self.damaged += 1,
            }
        }
        Ok(rows)
    }
}

/// Result of reading a line.
enum Line {
    Read,
    /// The line exceeds the limit; the rest of it is skipped.
    TooLong,
    End,
}

/// Reads the next line without its end into `line`.
async fn next_line(lines: &mut BufReader<tokio::fs::File>, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let mut is_first = true;
    loop {
        let mut piece = Vec::new();
        (&mut *lines).take(MAX_LINE_BYTES).read_until(b'\n', &mut piece).await?;
        let has_ended = piece.last() == Some(&b'\n') || (piece.len() as u64) < MAX_LINE_BYTES;
        if is_first && has_ended {
            let is_end = piece.is_empty();
            piece.pop_if(|last| *last == b'\n');
            *line = piece;
            return Ok(if is_end { Line::End } else { Line::Read });
        }
        if has_ended {
            return Ok(Line::TooLong);
        }
        is_first = false;
    }
}

/// Reads a file of at most `most` bytes.
pub(super) async fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(most + 1).read_to_end(&mut bytes).await?;
    let is_whole = bytes.len() as u64 <= most;
    if is_whole { Ok(bytes) } else { Err(io::Error::other(format!("it has more than {most} bytes"))) }
}

/// Parses a line; returns `None` if it is damaged.
fn parse(line: &[u8], summed: bool) -> Option<Row> {
    if !summed {
        return serde_json::from_slice(line).ok();
    }
    let rest = line.strip_suffix(SUM_ENDS)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(SUM_DIGITS)?)?;
    let object = rest.strip_suffix(SUM_BEGINS)?;
    if sum(object).as_bytes() != digits {
        return None;
    }
    serde_json::from_slice(&[object, b"}"].concat()).ok()
}

fn sum(object: &[u8]) -> String {
    hex::encode(&Sha256::digest(object)[..SUM_DIGITS / 2])
}

/// Returns the SHA-256 of a file in hex; `None` if the file does not exist.
pub(super) async fn hash(path: &Path) -> Result<Option<String>, Error> {
    let mut file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::of(path)(error)),
    };
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        let read = file.read(&mut piece).await.map_err(Error::of(path))?;
        if read == 0 {
            return Ok(Some(hex::encode(hash.finalize())));
        }
        hash.update(&piece[..read]);
    }
}

/// Writes and syncs a file that only its owner can read.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = private_files::options().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    // Only Unix can open and sync a directory.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn only_the_intact_rows_of_a_damaged_file_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rows.ndjson");
        let row = |id: u32| json!({"id": id, "name": format!("é{id}")}).as_object().cloned().expect("an object");
        let mut writer = RowWriter::create(path.clone()).await.expect("made");
        writer.write(&[row(1), row(2), row(3)]).await.expect("written");
        writer.finish().await.expect("finished");
        let whole = std::fs::read(&path).expect("read");
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            std::fs::write(&path, &changed).expect("written");
            let mut reader = RowReader::open(path.clone(), 2).await.expect("opened");
            let rows = reader.page().await.expect("read");
            assert!(rows.iter().all(|found| [row(1), row(2), row(3)].contains(found)), "byte {place}: {rows:?}");
            assert!(!rows.is_empty() && (rows.len() < 3 || place + 1 == whole.len()), "byte {place}: {rows:?}");
        }
    }
}
