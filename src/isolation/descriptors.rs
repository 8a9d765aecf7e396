//! Closes file descriptors that a decoder inherits.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// First descriptor after standard error.
const FIRST: RawFd = 3;
/// Maximum number of descriptors closed one by one, on systems without `close_range`.
const MAX_DESCRIPTORS: RawFd = 65_536;

/// Closes all inherited descriptors except the standard streams. Call it before opening anything.
pub(super) fn close_inherited() {
    #[cfg(target_os = "linux")]
    // SAFETY: nothing has been opened yet, so no value owns these descriptors.
    if unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most.and_then(|most| RawFd::try_from(most).ok()).unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    for number in FIRST..most {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
}
