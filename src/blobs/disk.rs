//! Stores blobs in a local directory.
//!
//! `object_store` writes the bytes to `{name}#1` in the blob's folder, syncs that file, renames it to `{name}` and
//! syncs the folder and all newly created folders. A killed process leaves at most a `…#1` file, which is no
//! [`BlobKey`] and is never served. Streamed uploads are written to `.incoming` and renamed from there.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use object_store::local::LocalFileSystem;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use super::{
    Error, Unfinished,
    key::{BlobKey, ORIGINALS},
};
use crate::private_files;

/// Size of the pieces in which files are read.
const PIECE_BYTES: u64 = 64 << 10;
/// Maximum number of threads that read files, so that they leave the cores to other work.
const MAX_READERS: usize = 16;
static READERS: Semaphore = Semaphore::const_new(MAX_READERS);
/// Folder of streamed uploads; it is no part of any key.
const INCOMING: &str = ".incoming";

/// Folders of the store, and which of them are known to be on stable storage.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    durable: Mutex<HashSet<String>>,
}

/// Opens the store in `directory`; creates it if it is missing.
pub(super) async fn open(directory: PathBuf) -> Result<(LocalFileSystem, Folders), Error> {
    let root = blocking(move || {
        make_directory(&directory)?;
        directory.canonicalize()
    })
    .await?;
    let store = LocalFileSystem::new_with_prefix(&root).map_err(Error::of_store)?.with_fsync(true);
    Ok((store, Folders { root, durable: Mutex::default() }))
}

impl Folders {
    /// Syncs the folders above a new blob, so that it survives a power failure.
    ///
    /// The store syncs only folders that it creates itself. If another writer has created a folder and not yet synced
    /// it, the blob could be lost after a power failure. Each process does this once per folder.
    pub(super) async fn make_durable(&self, key: &BlobKey) -> Result<(), Error> {
        let folder = key.folder().to_owned();
        if self.lock().contains(&folder) {
            return Ok(());
        }
        let above: Vec<_> = Path::new(&folder).ancestors().skip(1).map(|above| self.root.join(above)).collect();
        blocking(move || above.iter().try_for_each(|above| sync(above))).await?;
        self.lock().insert(folder);
        Ok(())
    }

    /// Returns the folder of streamed uploads.
    pub(super) fn incoming(&self) -> PathBuf {
        self.root.join(INCOMING)
    }

    /// Returns the path of the blob.
    pub(super) fn path_of(&self, key: &BlobKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Checks that a file can be created in the directory.
    pub(super) async fn check(&self) -> Result<(), Error> {
        // One name per process: concurrent checks may share the file, and a killed process leaves one empty file.
        let probe = self.root.join(format!(".check-{}", std::process::id()));
        blocking(move || {
            fs::File::create(&probe)?;
            match fs::remove_file(&probe) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Deletes unfinished files that were not written to for `age`.
    pub(super) async fn remove_unfinished(&self, age: Duration) -> Result<u64, Error> {
        let root = self.root.clone();
        blocking(move || {
            let mut removed = 0;
            each_unfinished(&root, age, |file| {
                fs::remove_file(file)?;
                removed += 1;
                Ok(())
            })?;
            Ok(removed)
        })
        .await
    }

    /// Counts unfinished files that were not written to for `age`; returns up to `most` names.
    pub(super) async fn unfinished(&self, age: Duration, most: usize) -> Result<Unfinished, Error> {
        let root = self.root.clone();
        blocking(move || {
            let mut found = Unfinished::default();
            each_unfinished(&root, age, |file| {
                found.count += 1;
                if found.examples.len() < most {
                    found.examples.push(file.strip_prefix(&root).unwrap_or(file).display().to_string());
                }
                Ok(())
            })?;
            Ok(found)
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.durable.lock()
    }
}

/// Creates `directory` and its missing ancestors, and syncs every folder with a new entry.
fn make_directory(directory: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut next = Some(directory);
    while let Some(folder) = next.filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        missing.push(folder);
        next = folder.parent();
    }
    private_files::create_dir_all(directory)?;
    for folder in missing {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn folders_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// Visits unfinished files. A file that has disappeared was finished by its writer.
fn each_unfinished(root: &Path, age: Duration, mut visit: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    match visit_old(&root.join(INCOMING), age, is_staged, &mut visit) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        visited => visited?,
    }
    let originals = root.join(ORIGINALS);
    let has_originals = originals.try_exists()?;
    for tree in [Some(root), has_originals.then_some(originals.as_path())].into_iter().flatten() {
        for outer in folders_in(tree)? {
            for inner in folders_in(&outer)? {
                visit_old(&inner, age, is_half_a_blob, &mut visit)?;
            }
        }
    }
    Ok(())
}

/// Visits files in `folder` whose names match `is_ours` and that were not written to for `age`.
fn visit_old(
    folder: &Path,
    age: Duration,
    is_ours: fn(&str) -> bool,
    visit: &mut impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let mut look = || {
            let ours = entry.file_name().to_str().is_some_and(is_ours);
            let old = ours && entry.metadata()?.modified()?.elapsed().unwrap_or_default() >= age;
            if old { visit(&entry.path()) } else { Ok(()) }
        };
        match look() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether a file is an unfinished blob: the part before `#` is a blob's name.
fn is_half_a_blob(name: &str) -> bool {
    name.split_once('#').is_some_and(|(blob, _)| BlobKey::of_file(blob).is_some())
}

/// Returns whether a file is an unfinished upload of this store.
fn is_staged(name: &str) -> bool {
    uuid::Uuid::try_parse(name).is_ok()
}

/// Renames `file` from `from` to `to` durably; creates missing folders above `to`.
pub(super) fn rename_durably(file: &fs::File, from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_directory(folder)?;
    file.sync_all()?;
    fs::rename(from, to)?;
    sync(folder)
}

fn sync(directory: &Path) -> io::Result<()> {
    // Only Unix can open and sync a directory.
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Reads the range of a file in pieces, each on a blocking thread.
///
/// `object_store` reads 8 KiB at a time: 28 thread switches for an image of 220 KB.
pub(super) fn pieces(file: fs::File, range: Range<u64>) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    futures_util::stream::try_unfold((file, range), async |(mut file, mut range)| {
        if range.is_empty() {
            return Ok(None);
        }
        let read = move || {
            let mut piece = vec![0; (range.end - range.start).min(PIECE_BYTES) as usize];
            file.seek(SeekFrom::Start(range.start))?;
            // A file that is shorter than expected is an error.
            file.read_exact(&mut piece)?;
            range.start += piece.len() as u64;
            Ok((Bytes::from(piece), (file, range)))
        };
        let _permit = READERS.acquire().await;
        blocking(read).await.map(Some)
    })
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::of_task)?.map_err(Error::of_io)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::TryStreamExt;

    use super::*;
    use crate::blobs::{Blobs, Engine};

    async fn store_in(directory: &Path) -> Blobs {
        Blobs::connect(&Engine::Disk { directory: directory.to_owned() }).await.expect("a store")
    }

    #[tokio::test]
    async fn missing_directories_are_created_and_a_store_can_be_reopened() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("a/b/blobs");
        let key = store_in(&directory).await.put(Bytes::from("x"), "png").await.expect("stored");
        let reopened = store_in(&directory).await;
        assert_eq!(reopened.read(&key).await.expect("read").expect("there"), "x");
    }

    #[tokio::test]
    async fn an_unfinished_file_is_not_listed_and_does_not_block_a_write() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        let key = BlobKey::for_bytes(b"whole", "jpg").expect("a known extension");
        let staged = home.path().join(format!("{key}#1"));
        fs::create_dir_all(staged.parent().expect("a folder")).expect("made");
        fs::write(&staged, "who").expect("written");

        assert!(!blobs.exists(&key).await.expect("an answer"));
        assert_eq!(blobs.list().try_collect::<Vec<_>>().await.expect("a list"), []);
        assert_eq!(blobs.put(Bytes::from("whole"), "jpg").await.expect("stored"), key);
        assert_eq!(blobs.read(&key).await.expect("read").expect("there"), "whole");
        assert_eq!(BlobKey::parse(&format!("{key}#1")), None);
    }

    #[tokio::test]
    async fn only_old_unfinished_files_are_removed() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        let key = blobs.put(Bytes::from("whole"), "jpg").await.expect("stored");
        let folder = home.path().join(key.as_str()).parent().expect("a folder").to_owned();
        let staged = home.path().join(format!("{key}#2"));
        fs::write(&staged, "who").expect("written");
        fs::write(folder.join("notes#1"), "not ours").expect("written");

        assert_eq!(blobs.remove_unfinished(Duration::from_secs(60)).await.expect("an answer"), 0);
        assert!(staged.exists());
        assert_eq!(blobs.remove_unfinished(Duration::ZERO).await.expect("an answer"), 1);
        assert!(!staged.exists() && folder.join("notes#1").exists());
        assert!(blobs.exists(&key).await.expect("an answer"));
    }

    #[tokio::test]
    async fn a_check_leaves_no_file_and_fails_without_the_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        blobs.check().await.expect("it is there");
        assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 0);
        home.close().expect("removed");
        let error = blobs.check().await.expect_err("it is gone");
        assert!(error.is_transient(), "{error:?}");
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_created_is_an_error() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(Blobs::connect(&Engine::Disk { directory: file.join("blobs") }).await.is_err());
        assert!(Blobs::connect(&Engine::Disk { directory: file }).await.is_err());
    }

    #[tokio::test]
    async fn a_file_is_read_in_pieces_and_a_missing_end_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let bytes: Vec<u8> = (0..150_000_u32).map(|place| place as u8).collect();
        fs::write(&path, &bytes).expect("a file");
        let read = async |range: Range<u64>| {
            let pieces: Result<Vec<_>, Error> =
                pieces(fs::File::open(&path).expect("a file"), range).try_collect().await;
            pieces
        };
        for (range, count) in [(0..150_000, 3), (0..65_536, 1), (65_535..65_537, 1), (7..7, 0), (1..65_538, 2)] {
            let pieces = read(range.clone()).await.expect("bytes");
            assert_eq!(pieces.len(), count, "{range:?}");
            assert_eq!(pieces.concat(), bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        assert!(read(149_999..150_001).await.is_err());
    }
}
