//! Identifies a file, so that a copy or a replacement at the same path is detected.

use std::{fs::Metadata, io, path::Path, time::SystemTime};

/// Identifies a file across renames and restarts of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db) struct FileIdentity(String);

impl FileIdentity {
    /// Returns the identity of the file at `path`, or `None` if there is none.
    ///
    /// # Errors
    /// If the file system returns an error, or `path` is no file: that a directory took its place does not show which
    /// file a program has open.
    pub(in crate::db) async fn of(path: &Path) -> io::Result<Option<Self>> {
        match tokio::fs::metadata(path).await {
            Ok(found) if found.is_file() => Ok(Some(Self::new(&found))),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the identity as text for storage.
    pub(in crate::db) fn as_str(&self) -> &str {
        &self.0
    }

    /// Computes the identity from inode and creation time.
    /// The device number is not used, since it may change when a file system is mounted again. The creation time
    /// distinguishes a file from a later one with the same inode. If the file system stores none, only the inode is
    /// used.
    fn new(found: &Metadata) -> Self {
        let created = found.created().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let created = created.map_or_else(String::new, |at| at.as_nanos().to_string());
        Self(format!("{}:{created}", inode(found)))
    }
}

#[cfg(unix)]
fn inode(found: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(found)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_copy_has_a_new_identity_and_a_renamed_file_keeps_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, copy, moved) = ["file", "copy", "moved"].map(|name| directory.path().join(name)).into();
        assert_eq!(FileIdentity::of(&file).await.expect("an answer"), None);
        fs::write(&file, "content").expect("written");
        fs::copy(&file, &copy).expect("copied");
        let identity = FileIdentity::of(&file).await.expect("an answer").expect("a file");
        assert_ne!(FileIdentity::of(&copy).await.expect("an answer"), Some(identity.clone()));
        fs::write(&file, "other content").expect("written");
        fs::rename(&file, &moved).expect("renamed");
        assert_eq!(FileIdentity::of(&moved).await.expect("an answer"), Some(identity));
        assert!(FileIdentity::of(directory.path()).await.is_err(), "a directory");
    }
}
