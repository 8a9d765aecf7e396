//! Streams an upload into a temporary file and hashes it, so that large files need little memory.
//!
//! [`Blobs::keep`] turns the file into a blob; dropping it before deletes the file. On disk the temporary file is in
//! the store's `.incoming` folder and is renamed to the blob. [`Blobs::remove_unfinished`] deletes files of killed
//! processes. For S3 the temporary file has no name and disappears with the process.

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

/// Write buffer size.
const BUFFER_BYTES: usize = 128 * 1024;
/// Size of the parts of a multipart upload; smaller blobs are sent in one request.
const PART_BYTES: usize = 8 << 20;

/// An upload that is not a blob yet.
#[derive(Debug)]
pub struct Staged {
    /// `None` while a blocking thread writes to it, and after a failed write.
    spool: Option<Spool>,
    /// Bytes not yet written.
    buffer: Vec<u8>,
    /// Deletes the file unless it became a blob.
    file: Option<Named>,
    size: u64,
}

/// Bytes written so far.
#[derive(Debug)]
struct Spool {
    file: File,
    hash: Sha256,
}

/// A named temporary file; dropping it deletes the file.
#[derive(Debug)]
struct Named(PathBuf);

impl Drop for Named {
    fn drop(&mut self) {
        // The file no longer exists if it became a blob.
        let _ = fs::remove_file(&self.0);
    }
}

impl Staged {
    /// Returns the number of bytes so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Unavailable`] from the disk of the temporary file; later writes fail too.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.size += piece.len() as u64;
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() < BUFFER_BYTES { Ok(()) } else { self.on_thread(|_| Ok(())).await }
    }

    /// Reads all bytes so far into memory.
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

    /// Returns the key of these bytes as an uploaded original; `extension` is one of [`BlobKey`]'s list.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Error::UnknownExtension`].
    pub async fn original_key(&mut self, extension: &str) -> Result<BlobKey, Error> {
        let hash = self.on_thread(|spool| Ok(hex::encode(spool.hash.clone().finalize()))).await?;
        let key = BlobKey::for_hash(&hash, extension).ok_or_else(|| Error::UnknownExtension(extension.to_owned()))?;
        Ok(key.as_original())
    }

    /// Writes the buffer, then runs `work`, on a blocking thread.
    async fn on_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spool) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(mut spool) = self.spool.take() else {
            return Err(Error::of_io(io::Error::other("an earlier write failed")));
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
    /// Reads the next part of the file.
    fn part(&mut self) -> io::Result<Vec<u8>> {
        let mut part = Vec::new();
        (&self.file).take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok(part)
    }
}

impl Blobs {
    /// Starts a streamed upload.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Unavailable`] from the disk of the temporary file.
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
                // Deleted immediately; the open file remains until it is closed.
                Ok((create(&named.0)?, None))
            }
        })
        .await?;
        let spool = Some(Spool { file, hash: Sha256::new() });
        Ok(Staged { spool, buffer: Vec::new(), file: name, size: 0 })
    }

    /// Stores staged bytes under `key`, their [`original_key`](Staged::original_key); otherwise like
    /// [`put`](Self::put).
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

    /// Sends staged bytes to S3, in parts if they are large.
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
            // If the abort fails, the bucket's lifecycle rule deletes the unfinished upload.
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

/// Creates a file that only this user can read and write.
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

    /// Returns a megabyte of varying bytes.
    fn many() -> Vec<u8> {
        (0..1_000_000_u32).map(|number| (number / 7) as u8).collect()
    }

    fn incoming(directory: &Path) -> usize {
        fs::read_dir(directory.join(".incoming")).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn a_staged_upload_becomes_the_same_blob_as_put_original() {
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
    async fn a_dropped_upload_leaves_no_file() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        let mut staged = blobs.stage().await.expect("a file");
        staged.write(&many()).await.expect("written");
        assert_eq!(incoming(home.path()), 1);
        drop(staged);
        assert_eq!(incoming(home.path()), 0);
    }

    #[tokio::test]
    async fn the_staged_file_of_a_killed_process_is_removed() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        let mut staged = blobs.stage().await.expect("a file");
        staged.write(&many()).await.expect("written");
        // Simulates a killed process.
        std::mem::forget(staged);
        assert_eq!(blobs.remove_unfinished(Duration::from_secs(60)).await.expect("an answer"), 0);
        assert_eq!(blobs.unfinished(Duration::ZERO, 10).await.expect("an answer").count, 1);
        assert_eq!(blobs.remove_unfinished(Duration::ZERO).await.expect("an answer"), 1);
        assert_eq!(incoming(home.path()), 0);
    }
}
