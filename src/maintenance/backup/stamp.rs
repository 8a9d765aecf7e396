//! Records in a file's modification time when a blob's copy was last verified.
//!
//! The seconds are the time of the verification. The fraction is a mark derived from the blob's key. A program that
//! changes the file, or copies it without its times, removes the mark; the file then counts as never verified. So no
//! list is needed.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::blobs::BlobKey;

/// Microseconds per second; common file systems store times with this precision.
const MICROSECONDS: u64 = 1_000_000;

/// Returns when the file was last verified as this blob; `None` if never, or if it changed since.
pub(super) fn proved_at(path: &Path, key: &BlobKey) -> io::Result<Option<SystemTime>> {
    let modified = match fs::metadata(path) {
        Ok(file) => file.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok((since.subsec_nanos() == mark(key)).then_some(modified))
}

/// Records that the file was verified as this blob.
pub(super) fn note(path: &Path, key: &BlobKey, now: SystemTime) -> io::Result<()> {
    // With the mark as its fraction, the current second could be in the future, which does not count.
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().saturating_sub(1);
    let stamp = Duration::new(seconds, mark(key));
    File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH + stamp)
}

/// Returns the mark of a blob in nanoseconds, a multiple of 1,000.
fn mark(key: &BlobKey) -> u32 {
    let digits = u64::from_str_radix(&key.sha256()[..15], 16).unwrap_or_default();
    u32::try_from(digits % MICROSECONDS * 1_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_counts_as_verified_until_it_is_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("blob");
        // The beginning of a second.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let key = BlobKey::for_bytes(b"blob", "jpg").expect("a known extension");
        assert_eq!(proved_at(&path, &key).expect("an answer"), None);
        fs::write(&path, "blob").expect("written");
        assert_eq!(proved_at(&path, &key).expect("an answer"), None);
        note(&path, &key, now).expect("noted");
        let proved = proved_at(&path, &key).expect("an answer").expect("it was proved");
        assert!(now.duration_since(proved).expect("no time to come") <= Duration::from_secs(2));
        fs::write(&path, "blub").expect("written");
        assert_eq!(proved_at(&path, &key).expect("an answer"), None);
    }
}
