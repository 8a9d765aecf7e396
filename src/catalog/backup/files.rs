//! Files of rows: one JSON object a line, written and read a page at a time, with a hash over all bytes.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::{Error, PAGE};
use crate::db::transfer::Row;

/// A file of rows that is being written.
pub(super) struct RowWriter {
    file: tokio::fs::File,
    path: PathBuf,
    hash: Sha256,
    rows: u64,
}

/// A file of rows that is being read.
pub(super) struct RowReader {
    lines: tokio::io::Lines<BufReader<tokio::fs::File>>,
    path: PathBuf,
}

impl RowWriter {
    pub(super) async fn create(path: PathBuf) -> Result<Self, Error> {
        let file = tokio::fs::File::create(&path).await.map_err(Error::of(&path))?;
        Ok(Self { file, path, hash: Sha256::new(), rows: 0 })
    }

    pub(super) async fn write(&mut self, rows: &[Row]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut bytes, row).map_err(|error| Error::of(&self.path)(error.into()))?;
            bytes.push(b'\n');
        }
        self.hash.update(&bytes);
        self.rows += rows.len() as u64;
        self.file.write_all(&bytes).await.map_err(Error::of(&self.path))
    }

    /// How many rows there are, and the SHA-256 of the file in hex, once it is on stable storage.
    pub(super) async fn finish(mut self) -> Result<(u64, String), Error> {
        self.file.flush().await.map_err(Error::of(&self.path))?;
        self.file.sync_all().await.map_err(Error::of(&self.path))?;
        Ok((self.rows, hex::encode(self.hash.finalize())))
    }
}

impl RowReader {
    pub(super) async fn open(path: PathBuf) -> Result<Self, Error> {
        let file = tokio::fs::File::open(&path).await.map_err(Error::of(&path))?;
        Ok(Self { lines: BufReader::new(file).lines(), path })
    }

    /// The next rows, none at the end.
    pub(super) async fn page(&mut self) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        while rows.len() < PAGE {
            let Some(line) = self.lines.next_line().await.map_err(Error::of(&self.path))? else { break };
            let row = serde_json::from_str(&line);
            let unreadable =
                |error| Error::Damaged(format!("a row of {} cannot be read: {error}", self.path.display()));
            rows.push(row.map_err(unreadable)?);
        }
        Ok(rows)
    }
}

/// The SHA-256 of a file in hex; `None` if it is not there.
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

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    // Only Unix lets a directory be opened and synced.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
