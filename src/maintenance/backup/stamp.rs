//! When the copy of a blob was last proved: its file's modification time says so, to the second, and bears a mark made from
//! the blob's key in its fraction. A program that changes the file, or a copy of it that does not keep times, takes the mark
//! away, and then the file counts as never proved. So no list has to be kept, whatever a backup's size.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::blobs::BlobKey;

/// Whole microseconds, which every usual file system keeps.
const MICROSECONDS: u64 = 1_000_000;

/// When the file was proved to be this blob; `None` if it was not, or was changed since.
pub(super) fn proved_at(path: &Path, key: &BlobKey) -> io::Result<Option<SystemTime>> {
    let modified = match fs::metadata(path) {
        Ok(file) => file.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok((since.subsec_nanos() == mark(key)).then_some(modified))
}

/// Notes that the file was proved to be this blob.
pub(super) fn note(path: &Path, key: &BlobKey, now: SystemTime) -> io::Result<()> {
    // With the mark as its fraction this second might be one to come, which proves nothing.
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().saturating_sub(1);
    let stamp = Duration::new(seconds, mark(key));
    File::options().write(true).open(path)?.set_modified(SystemTime::UNIX_EPOCH + stamp)
}

/// Nanoseconds, a whole number of microseconds.
fn mark(key: &BlobKey) -> u32 {
    let digits = u64::from_str_radix(&key.sha256()[..15], 16).unwrap_or_default();
    u32::try_from(digits % MICROSECONDS * 1_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_proved_until_it_is_changed() {
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
