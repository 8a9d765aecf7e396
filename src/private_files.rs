//! Creates files and directories for their owner only, regardless of the umask.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    path::Path,
};

/// Sets the process's umask so that files get mode 0600 and directories 0700.
pub fn restrict_umask() {
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Creates a directory and its missing ancestors with mode 0700.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Returns options that create files with mode 0600.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Removes group and other permissions from a file or directory; returns the number of changes.
///
/// Files of other users, symbolic links, a file system's root and shared directories such as `/tmp` are skipped. A
/// missing file is no error.
///
/// # Errors
/// If the mode cannot be read or changed.
pub fn tighten(path: &Path) -> io::Result<u64> {
    Ok(u64::from(is_open(path)? && close(path)?))
}

/// Runs [`tighten`] on a directory tree. The root comes last; if it is already private, its content is too and is not
/// read.
///
/// # Errors
/// If a directory cannot be read, or a mode cannot be changed.
pub fn tighten_tree(root: &Path) -> io::Result<u64> {
    if !is_open(root)? {
        return Ok(0);
    }
    let mut changed = 0;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            kind => kind?,
        };
        changed += if kind.is_dir() { tighten_tree(&entry.path())? } else { tighten(&entry.path())? };
    }
    Ok(changed + u64::from(close(root)?))
}

/// Returns whether others have permissions that this process may remove.
#[cfg(unix)]
fn is_open(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    const OTHERS: u32 = 0o077;
    const STICKY: u32 = 0o1000;
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let is_shared = found.is_dir() && (found.mode() & STICKY != 0 || path.canonicalize()?.parent().is_none());
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    Ok((found.is_file() || found.is_dir()) && is_own && !is_shared && found.mode() & OTHERS != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Removes the permissions of others; returns `false` if the file no longer exists.
#[cfg(unix)]
fn close(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let changed = fs::symlink_metadata(path).and_then(|found| {
        let mode = found.permissions().mode() & 0o700;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    });
    match changed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        changed => changed.map(|()| true),
    }
}

#[cfg(not(unix))]
fn close(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    }

    #[test]
    fn a_tree_is_made_private_once_and_links_are_not_followed() {
        let home = tempfile::tempdir().expect("a directory");
        let (root, other) = (home.path().join("blobs"), home.path().join("other"));
        fs::create_dir_all(root.join("ab/cd")).expect("made");
        fs::write(root.join("ab/cd/x.jpg"), "x").expect("written");
        fs::write(&other, "not ours").expect("written");
        symlink(&other, root.join("link")).expect("linked");
        for (path, mode) in [(&root, 0o755), (&root.join("ab/cd/x.jpg"), 0o644), (&other, 0o644)] {
            set(path, mode);
        }
        for folder in ["ab", "ab/cd"] {
            set(&root.join(folder), 0o777);
        }
        assert_eq!(tighten_tree(&root).expect("closed"), 4);
        assert_eq!((mode(&root), mode(&root.join("ab")), mode(&root.join("ab/cd/x.jpg"))), (0o700, 0o700, 0o600));
        assert_eq!(mode(&other), 0o644);
        assert_eq!(tighten_tree(&root).expect("closed"), 0);
    }

    #[test]
    fn shared_directories_and_missing_files_are_skipped() {
        let home = tempfile::tempdir().expect("a directory");
        set(home.path(), 0o1777);
        assert_eq!(tighten(home.path()).expect("looked at"), 0);
        assert_eq!(mode(home.path()), 0o1777);
        assert_eq!(tighten(&home.path().join("none")).expect("looked at"), 0);
        assert_eq!(tighten(Path::new("/")).expect("looked at"), 0);
    }

    #[test]
    fn new_files_are_for_their_owner_only() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("a/b/file");
        create_dir_all(file.parent().expect("a parent")).expect("made");
        options().write(true).create(true).truncate(true).open(&file).expect("made");
        assert_eq!((mode(&home.path().join("a")), mode(&file)), (0o700, 0o600));
    }
}
