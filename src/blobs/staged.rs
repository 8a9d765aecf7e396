//! Bytes that arrive piece by piece: written to a temporary file and hashed on the way, so that a file of any size costs
//! little memory. They become a blob when [`Blobs::keep`] is called; dropped before that, nothing is left of them.
//!
//! On a disk the temporary file lies in the store's own `.incoming` folder and is renamed to the blob. A process that is
//! killed leaves it behind, and [`Blobs::remove_unfinished`] removes it. For S3 it has no name at all and ends with the process.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use object_store::{MultipartUpload, PutMultipartOptions};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{BlobKey, Blobs, Error, disk, path};
use crate::private_files;

/// Pieces are gathered up to this size before they are written.
const BUFFER_BYTES: usize = 128 * 1024;
/// A larger blob goes to S3 in parts of this size, one after the other.
const PART_BYTES: usize = 8 << 20;

/// Bytes that are not a blob yet.
#[derive(Debug)]
pub struct Staged {
    /// `None` only while a thread writes to it.
    spool: Option<Spool>,
    /// Gathered and not written yet.
    buffer: Vec<u8>,
    /// Removes the file unless it became a blob.
    file: Option<Named>,
    size: u64,
}

/// What is on disk so far.
#[derive(Debug)]
struct Spool {
    file: File,
    hash: Sha256,
}

/// A temporary file with a name, which is removed when this is dropped.
#[derive(Debug)]
struct Named(PathBuf);

impl Drop for Named {
    fn drop(&mut self) {
        // It is gone already if it became a blob.
        let _ = fs::remove_file(&self.0);
    }
}

impl Staged {
    /// Bytes so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Unavailable`] by the disk of the temporary file; nothing more can be written then.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.size += piece.len() as u64;
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() < BUFFER_BYTES { Ok(()) } else { self.on_thread(|_| Ok(())).await }
    }

    /// All bytes so far, read into memory.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn read(&mut self) -> Result<Bytes, Error> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        self.on_thread(move |spool| {
            spool.file.seek(SeekFrom::Start(0))?;
            let mut bytes = Vec::with_capacity(size);
            spool.file.read_to_end(&mut bytes)?;
            Ok(bytes.into())
        })
        .await
    }

    /// The key that these bytes have as an uploaded original; `extension` is one of [`BlobKey`]'s list.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Error::UnknownExtension`].
    pub async fn original_key(&mut self, extension: &str) -> Result<BlobKey, Error> {
        let hash = self.on_thread(|spool| Ok(hex::encode(spool.hash.clone().finalize()))).await?;
        let key = BlobKey::for_hash(&hash, extension).ok_or_else(|| Error::UnknownExtension(extension.to_owned()))?;
        Ok(key.as_original())
    }

    /// Writes what was gathered, then runs `work`, both on a thread that may wait for the disk.
    async fn on_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spool) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(mut spool) = self.spool.take() else {
            return Err(Error::of_io(io::Error::other("an earlier piece could not be written")));
        };
        let written = disk::blocking(move || {
            spool.hash.update(&buffer);
            spool.file.write_all(&buffer)?;
            buffer.clear();
            let outcome = work(&mut spool)?;
            Ok((spool, buffer, outcome))
        });
        let (spool, buffer, outcome) = written.await?;
        (self.spool, self.buffer) = (Some(spool), buffer);
        Ok(outcome)
    }
}

impl Spool {
    /// Up to a part of the file from where it stands.
    fn part(&mut self) -> io::Result<Vec<u8>> {
        let mut part = Vec::new();
        (&self.file).take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok(part)
    }
}

impl Blobs {
    /// Begins a blob whose bytes arrive piece by piece.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Unavailable`] by the disk of the temporary file.
    pub async fn stage(&self) -> Result<Staged, Error> {
        let directory = self.folders.as_ref().map(|folders| folders.incoming());
        let (file, name) = disk::blocking(move || match directory {
            Some(directory) => {
                private_files::create_dir_all(&directory)?;
                let path = directory.join(Uuid::new_v4().simple().to_string());
                Ok((create(&path)?, Some(Named(path))))
            }
            None => {
                let named = Named(std::env::temp_dir().join(format!("pm-{}", Uuid::new_v4().simple())));
                // The name goes at once; the file stays until it is closed.
                Ok((create(&named.0)?, None))
            }
        })
        .await?;
        let spool = Some(Spool { file, hash: Sha256::new() });
        Ok(Staged { spool, buffer: Vec::new(), file: name, size: 0 })
    }

    /// Stores staged bytes under `key`, which is their [`original_key`](Staged::original_key), as [`put`](Self::put) does.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn keep(&self, mut staged: Staged, key: &BlobKey) -> Result<(), Error> {
        let is_stored = self.is_young_and_whole(key, staged.size).await?;
        match (&self.folders, &staged.file) {
            (Some(folders), Some(named)) if !is_stored => {
                let (from, to) = (named.0.clone(), folders.path_of(key));
                staged.on_thread(move |spool| disk::rename_durably(&spool.file, &from, &to)).await?;
            }
            (None, _) if !is_stored => self.send(&mut staged, key).await?,
            _ => {}
        }
        match &self.folders {
            Some(folders) => folders.make_durable(key).await,
            None => Ok(()),
        }
    }

    /// Sends staged bytes to S3: a small blob at once, a large one in parts.
    async fn send(&self, staged: &mut Staged, key: &BlobKey) -> Result<(), Error> {
        let first = staged.on_thread(|spool| spool.file.seek(SeekFrom::Start(0)).and_then(|_| spool.part())).await?;
        if staged.size <= PART_BYTES as u64 {
            let put = self.store.put_opts(&path(key), Bytes::from(first).into(), self.put_options(key)).await;
            return put.map(|_| ()).map_err(Error::of_store);
        }
        let options = PutMultipartOptions { attributes: self.put_options(key).attributes, ..Default::default() };
        let mut upload = self.store.put_multipart_opts(&path(key), options).await.map_err(Error::of_store)?;
        let sent = send_parts(&mut upload, staged, first).await;
        if sent.is_err() {
            // What cannot be taken back now is removed by the rule of the bucket for unfinished uploads.
            let _ = upload.abort().await;
        }
        sent
    }
}

async fn send_parts(upload: &mut Box<dyn MultipartUpload>, staged: &mut Staged, first: Vec<u8>) -> Result<(), Error> {
    let mut part = first;
    while !part.is_empty() {
        upload.put_part(Bytes::from(part).into()).await.map_err(Error::of_store)?;
        part = staged.on_thread(Spool::part).await?;
    }
    upload.complete().await.map(|_| ()).map_err(Error::of_store)
}

/// A new file that this process alone may read and write.
fn create(path: &Path) -> io::Result<File> {
    private_files::options().read(true).write(true).create_new(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::blobs::Engine;

    async fn store_in(directory: &Path) -> Blobs {
        Blobs::connect(&Engine::Disk { directory: directory.to_owned() }).await.expect("a store")
    }

    /// A megabyte of changing bytes.
    fn many() -> Vec<u8> {
        (0..1_000_000_u32).map(|number| (number / 7) as u8).collect()
    }

    fn incoming(directory: &Path) -> usize {
        fs::read_dir(directory.join(".incoming")).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn staged_pieces_become_the_blob_that_put_original_would_store() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        let bytes = many();
        let mut staged = blobs.stage().await.expect("a file");
        for piece in bytes.chunks(70_001) {
            staged.write(piece).await.expect("written");
        }
        assert_eq!(staged.size(), bytes.len() as u64);
        assert_eq!(staged.read().await.expect("read"), bytes);
        let key = staged.original_key("png").await.expect("a known extension");
        blobs.keep(staged, &key).await.expect("stored");
        assert_eq!(key, BlobKey::for_bytes(&bytes, "png").expect("a known extension").as_original());
        assert_eq!(blobs.read(&key).await.expect("read").expect("there"), bytes);
        assert_eq!(incoming(home.path()), 0);

        let mut again = blobs.stage().await.expect("a file");
        again.write(&bytes).await.expect("written");
        assert_eq!(again.original_key("png").await.expect("a known extension"), key);
        blobs.keep(again, &key).await.expect("stored already");
        assert_eq!(blobs.put_original(bytes.into(), "png").await.expect("stored already"), key);
        assert_eq!(incoming(home.path()), 0);
    }

    #[tokio::test]
    async fn staged_bytes_that_are_dropped_leave_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        let mut staged = blobs.stage().await.expect("a file");
        staged.write(&many()).await.expect("written");
        assert_eq!(incoming(home.path()), 1);
        drop(staged);
        assert_eq!(incoming(home.path()), 0);
    }

    #[tokio::test]
    async fn the_staged_file_of_a_killed_process_is_removed_with_the_other_unfinished_ones() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        let mut staged = blobs.stage().await.expect("a file");
        staged.write(&many()).await.expect("written");
        // What a killed process does not do.
        std::mem::forget(staged);
        assert_eq!(blobs.remove_unfinished(Duration::from_secs(60)).await.expect("an answer"), 0);
        assert_eq!(blobs.unfinished(Duration::ZERO, 10).await.expect("an answer").count, 1);
        assert_eq!(blobs.remove_unfinished(Duration::ZERO).await.expect("an answer"), 1);
        assert_eq!(incoming(home.path()), 0);
    }
}
