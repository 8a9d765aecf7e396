//! Copies of blobs in a backup.
//!
//! Each blob is copied once, verified by its SHA-256 from time to time, and copied again if it is damaged or missing.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Error, FORMAT, MAX_CONCURRENT_BLOBS, Seen, files,
    files::RowReader,
    manifest::{Directory, TableFile},
    references::{REFERRING, Reference, reference},
    report::{Saved, Verify},
    stamp,
};
use crate::{
    blobs::{BlobKey, Blobs, State},
    maintenance::progress::{Step, Watch},
};

/// A copy is verified again after this time.
const VERIFICATION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

pub(super) struct Copies<'a> {
    store: &'a Blobs,
    directory: &'a Directory,
    target: Blobs,
    verify: Verify,
    /// Blobs that are missing from the previous backup.
    lost: &'a HashSet<String>,
    now: SystemTime,
}

/// The result for one blob.
enum Copy {
    Kept,
    Verified,
    Copied(u64),
    Mended(u64),
    Missing,
}

impl<'a> Copies<'a> {
    pub(super) async fn new(
        store: &'a Blobs,
        directory: &'a Directory,
        verify: Verify,
        lost: &'a HashSet<String>,
    ) -> Result<Self, Error> {
        Ok(Self { store, directory, target: directory.blobs().await?, verify, lost, now: SystemTime::now() })
    }

    /// Copies or verifies every blob that the rows in these files refer to.
    pub(super) async fn save(
        &self,
        folder: &str,
        tables: &[TableFile],
        saved: &mut Saved,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let (mut done, mut seen, mut missing) = (0, Seen::default(), Seen::default());
        let referring = tables.iter().filter(|table| REFERRING.contains(&table.name.as_str()));
        let total = referring.clone().map(|table| table.rows).sum();
        for table in referring {
            let mut rows = RowReader::open(self.directory.table(folder, &table.name), FORMAT).await?;
            loop {
                let page = rows.page().await?;
                if page.is_empty() {
                    break;
                }
                let references: Vec<_> = page.iter().filter_map(reference).collect();
                let new: Vec<_> = references.iter().filter(|reference| seen.is_first(&reference.key)).collect();
                let copies = stream::iter(new)
                    .map(|reference| async move { Ok::<_, Error>((reference, self.copy(reference).await?)) });
                let mut copies = copies.buffer_unordered(MAX_CONCURRENT_BLOBS);
                while let Some((reference, copy)) = copies.try_next().await? {
                    if matches!(copy, Copy::Missing) {
                        missing.is_first(&reference.key);
                    }
                    saved.count(&reference.key, &copy);
                }
                saved.references += references.len() as u64;
                let lacking = references.iter().filter(|reference| missing.contains(&reference.key));
                saved.missing_references += lacking.count() as u64;
                done += page.len() as u64;
                watch(Step { name: "copying blobs", done, total });
            }
        }
        if self.verify == Verify::All {
            self.verify_the_rest(&seen, saved, watch).await?;
        }
        Ok(())
    }

    async fn copy(&self, reference: &Reference) -> Result<Copy, Error> {
        let Some(key) = BlobKey::parse(&reference.key) else { return Ok(Copy::Missing) };
        let Some(found) = self.target.find(&key).await? else {
            let was_lost = self.lost.contains(&reference.key);
            return Ok(match self.fetch(&key).await? {
                State::Whole { bytes } if was_lost => Copy::Mended(bytes),
                State::Whole { bytes } => Copy::Copied(bytes),
                State::Damaged | State::Missing => Copy::Missing,
            });
        };
        let has_its_size = reference.bytes.is_none_or(|bytes| bytes == found.size);
        if has_its_size && !self.is_due(&key).await? {
            return Ok(Copy::Kept);
        }
        if has_its_size && matches!(self.target.examine(&key).await?, State::Whole { .. }) {
            self.note(&key).await;
            return Ok(Copy::Verified);
        }
        Ok(match self.fetch(&key).await? {
            State::Whole { bytes } => Copy::Mended(bytes),
            State::Damaged | State::Missing => Copy::Missing,
        })
    }

    /// Copies the blob from the store, replacing an existing copy.
    async fn fetch(&self, key: &BlobKey) -> Result<State, Error> {
        let state = self.store.copy_to(key, &self.target).await?;
        if matches!(state, State::Whole { .. }) {
            self.note(key).await;
        }
        Ok(state)
    }

    async fn is_due(&self, key: &BlobKey) -> Result<bool, Error> {
        if self.verify == Verify::All {
            return Ok(true);
        }
        let (path, of) = (self.directory.blob(key), key.clone());
        let proved = self.at(path, move |path| stamp::proved_at(path, &of)).await?;
        // A time in the future was written by a wrong clock.
        Ok(proved.is_none_or(|proved| self.now.duration_since(proved).map_or(true, |age| age > VERIFICATION_LIFETIME)))
    }

    /// Records the verification. If the file system cannot, the next backup reads the copy again.
    async fn note(&self, key: &BlobKey) {
        let (path, of, now) = (self.directory.blob(key), key.clone(), self.now);
        if let Err(error) = self.at(path, move |path| stamp::note(path, &of, now)).await {
            tracing::debug!(%error, %key, "the verification time of a copy could not be recorded");
        }
    }

    async fn at<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce(&std::path::Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let on = path.clone();
        files::blocking(move || work(&on)).await.map_err(Error::of(&path))
    }

    /// Verifies copies that no row refers to. A damaged copy is replaced from the store, or else deleted.
    async fn verify_the_rest(&self, seen: &Seen, saved: &mut Saved, watch: &mut Watch<'_>) -> Result<(), Error> {
        let mut listed = self.target.list();
        let mut done = 0;
        while let Some(found) = listed.try_next().await? {
            done += 1;
            watch(Step { name: "verifying copies of older backups", done, total: 0 });
            if seen.contains(found.key.as_str()) {
                continue;
            }
            if matches!(self.target.examine(&found.key).await?, State::Whole { .. }) {
                self.note(&found.key).await;
                saved.verified += 1;
                continue;
            }
            let mended = matches!(self.fetch(&found.key).await?, State::Whole { .. });
            let path = self.directory.relative(&self.directory.blob(&found.key));
            if mended {
                saved.mended.add(path);
            } else {
                self.target.delete(&found.key).await?;
                saved.mended.add(format!("{path} was damaged and unreferenced, and was deleted"));
            }
        }
        Ok(())
    }
}

impl Saved {
    fn count(&mut self, key: &str, copy: &Copy) {
        match copy {
            Copy::Kept => {}
            Copy::Verified => self.verified += 1,
            Copy::Copied(bytes) => {
                self.copied += 1;
                self.bytes += bytes;
            }
            Copy::Mended(bytes) => {
                self.bytes += bytes;
                self.mended.add(format!("blobs/{key}"));
            }
            Copy::Missing => self.missing.add(key),
        }
    }
}
