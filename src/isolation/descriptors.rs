//! What a decoder has open when it begins.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// The first number after input, output and standard error.
const FIRST: RawFd = 3;
/// Numbers that are closed one by one where the system cannot close all of them at once.
const MOST: RawFd = 65_536;

/// Closes everything that was inherited but input, output and standard error. To be called before anything is opened.
pub(super) fn close_inherited() {
    #[cfg(target_os = "linux")]
    // SAFETY: nothing has been opened yet, so that no value owns any of these numbers.
    if unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most.and_then(|most| RawFd::try_from(most).ok()).unwrap_or(MOST).min(MOST);
    for number in FIRST..most {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
}
