//! Generates secrets and stores them in files that only their owner can read.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::private_files;

/// Creates the file `path` atomically with a random secret of 64 hex digits; returns the secret. If the file exists by
/// now, returns its content.
///
/// # Errors
/// If the file cannot be written.
pub fn make(path: &Path) -> io::Result<String> {
    // Two random ids of 122 bits each.
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let unfinished = write(path, &secret)?;
    // A hard link never replaces an existing file.
    let linked = fs::hard_link(&unfinished, path);
    fs::remove_file(&unfinished)?;
    match linked {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}

/// Writes `secret` to the file `path` atomically, replacing its content.
///
/// # Errors
/// If the file cannot be written.
pub fn replace(path: &Path, secret: &str) -> io::Result<()> {
    fs::rename(write(path, secret)?, path)
}

/// Writes an owner-only temporary file beside `path`; returns its path.
fn write(path: &Path, secret: &str) -> io::Result<PathBuf> {
    if let Some(directory) = path.parent() {
        private_files::create_dir_all(directory)?;
    }
    let unfinished = path.with_extension(Uuid::new_v4().simple().to_string());
    let mut file = private_files::options().write(true).create_new(true).open(&unfinished)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    Ok(unfinished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_created_once_with_owner_only_mode() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data/url.key");
        let first = make(&path).expect("made");
        assert_eq!(first.len(), 64);
        assert_eq!(make(&path).expect("read"), first);
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("a directory").count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        }
    }
}
