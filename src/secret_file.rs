//! Secrets that an installation makes for itself and keeps in a file that nobody else can read.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::private_files;

/// Makes a secret of 64 digits of hex in the new file `path`, whole or not at all, and answers it; the one that is there
/// already if another process was quicker.
///
/// # Errors
/// If the file cannot be written.
pub fn make(path: &Path) -> io::Result<String> {
    // Two random ids of 122 bits each.
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let unfinished = write(path, &secret)?;
    // A link is never made over a file that is there.
    let linked = fs::hard_link(&unfinished, path);
    fs::remove_file(&unfinished)?;
    match linked {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}

/// Keeps `secret` in the file `path`, whole or not at all, in the place of what was there.
///
/// # Errors
/// If the file cannot be written.
pub fn replace(path: &Path, secret: &str) -> io::Result<()> {
    fs::rename(write(path, secret)?, path)
}

/// Writes a file beside `path` that only its owner reads; returns its name.
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
    fn a_secret_is_made_once_and_only_its_owner_reads_it() {
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
