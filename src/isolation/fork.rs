//! Forks this process.
#![allow(unsafe_code)]

use std::io;

use rustix::process::Pid;

/// Tells the child from the parent after a fork.
pub(super) enum Side {
    /// The child.
    Child,
    /// The parent, with the child's process id.
    Parent(Pid),
}

/// Forks this process. The process must have a single thread: the child would inherit locks that other threads hold,
/// but not those threads.
pub(super) fn fork() -> io::Result<Side> {
    // SAFETY: the process has one thread, so no missing thread holds a lock in the child.
    let id = unsafe { libc::fork() };
    match Pid::from_raw(id) {
        Some(_) if id < 0 => Err(io::Error::last_os_error()),
        Some(child) => Ok(Side::Parent(child)),
        None => Ok(Side::Child),
    }
}
