//! A second process from this one, which shares nothing with it any more.
#![allow(unsafe_code)]

use std::io;

use rustix::process::Pid;

/// Which of the two processes this is.
pub(super) enum Side {
    /// The new one.
    Child,
    /// The old one, with the number of the new one.
    Parent(Pid),
}

/// Makes a copy of this process. Only one with a single thread may call it: of other threads the copy would have what
/// they held, but not them.
pub(super) fn fork() -> io::Result<Side> {
    // SAFETY: the caller's process has one thread, so that no lock is held by a thread that the copy lacks.
    let id = unsafe { libc::fork() };
    match Pid::from_raw(id) {
        Some(_) if id < 0 => Err(io::Error::last_os_error()),
        Some(child) => Ok(Side::Parent(child)),
        None => Ok(Side::Child),
    }
}
