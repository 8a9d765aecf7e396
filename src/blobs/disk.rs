//! Blobs in a directory of this machine.
//!
//! Files are written by `object_store`'s local store with its fsync on: the bytes go to `{name}#1` in the blob's own
//! folder, that file is synced, renamed to `{name}`, and the folder is synced; folders that had to be made are synced
//! upwards. A process that is killed leaves at most a `…#1` behind, which is no [`BlobKey`] and so is never served. Bytes
//! that arrive piece by piece are gathered in `.incoming` and renamed from there.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use object_store::local::LocalFileSystem;

use super::{
    Error, Unfinished,
    key::{BlobKey, ORIGINALS},
};
use crate::private_files;

/// The folder of bytes that arrive piece by piece; its name is no part of any key.
const INCOMING: &str = ".incoming";

/// The folders of the store, and which of them are known to be on stable storage.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    durable: Mutex<HashSet<String>>,
}

/// Opens the store in `directory`, which is made if it is missing.
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
    /// Makes sure that the folders above a blob that was just written outlast a power failure.
    ///
    /// The store syncs the folders that it makes itself. Whoever finds a folder that another writer has made and not
    /// yet synced would otherwise report a blob as stored that cannot be found after the failure. Once a folder and a
    /// process are enough.
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

    /// Where bytes lie that are not blobs yet.
    pub(super) fn incoming(&self) -> PathBuf {
        self.root.join(INCOMING)
    }

    /// Where the blob of `key` lies or would lie.
    pub(super) fn path_of(&self, key: &BlobKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Whether a file can be made in the directory.
    pub(super) async fn check(&self) -> Result<(), Error> {
        // One name a process: two checks at once may share the file, and a process that dies leaves one empty file.
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

    /// Removes files of writes that never ended, if nothing was written to them for `age`.
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

    /// Counts files of writes that never ended, if nothing was written to them for `age`, and names up to `most`.
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.durable.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Makes `directory` and what is missing above it, and syncs every folder that got a new entry.
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

/// Visits files of writes that never ended. One that is gone by then was finished by its writer.
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

/// Visits the files in `folder` to which nothing was written for `age`, if `is_ours` knows their names.
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

/// Whether a file beside blobs was written by this store: the part before the `#` is a blob's name.
fn is_half_a_blob(name: &str) -> bool {
    name.split_once('#').is_some_and(|(blob, _)| BlobKey::of_file(blob).is_some())
}

/// Whether a file among the incoming ones was written by this store.
fn is_staged(name: &str) -> bool {
    uuid::Uuid::try_parse(name).is_ok()
}

/// Makes `file`, which is called `from`, the file `to`, on stable storage; folders above `to` that are missing are made.
pub(super) fn rename_durably(file: &fs::File, from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_directory(folder)?;
    file.sync_all()?;
    fs::rename(from, to)?;
    sync(folder)
}

fn sync(directory: &Path) -> io::Result<()> {
    // Only Unix lets a directory be opened and synced.
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
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
    async fn missing_directories_are_made_and_an_existing_store_is_opened_again() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("a/b/blobs");
        let key = store_in(&directory).await.put(Bytes::from("x"), "png").await.expect("stored");
        let reopened = store_in(&directory).await;
        assert_eq!(reopened.read(&key).await.expect("read").expect("there"), "x");
    }

    #[tokio::test]
    async fn the_unfinished_file_of_a_killed_process_is_neither_listed_nor_in_the_way() {
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
    async fn old_unfinished_files_are_removed_and_nothing_else() {
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
    async fn a_check_leaves_nothing_behind_and_fails_without_the_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let blobs = store_in(home.path()).await;
        blobs.check().await.expect("it is there");
        assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 0);
        home.close().expect("removed");
        let error = blobs.check().await.expect_err("it is gone");
        assert!(error.is_transient(), "{error:?}");
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_an_error() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(Blobs::connect(&Engine::Disk { directory: file.join("blobs") }).await.is_err());
        assert!(Blobs::connect(&Engine::Disk { directory: file }).await.is_err());
    }
}
