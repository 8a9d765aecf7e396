//! Tests what a sandboxed decoder can still reach, in debug builds only.
#![allow(unsafe_code)]

use std::{io, sync::OnceLock};

/// Number of descriptors to check.
const DESCRIPTORS: libc::c_int = 65_536;

/// Id of the parent process; the sandbox forbids asking for it later.
static PARENT: OnceLock<libc::c_long> = OnceLock::new();

/// Stores the parent's id before the sandbox is applied.
pub(super) fn remember_parent() {
    if let Some(parent) = rustix::process::getppid() {
        let _ = PARENT.set(parent.as_raw_nonzero().get().into());
    }
}

/// Lists the open descriptors.
pub(super) fn descriptors() -> String {
    let mut open = Vec::new();
    for number in 0..DESCRIPTORS {
        // SAFETY: the structure is plain data.
        let mut found: libc::stat = unsafe { std::mem::zeroed() };
        if look(number, &mut found) {
            let kind = match found.st_mode & libc::S_IFMT {
                libc::S_IFSOCK => "socket",
                libc::S_IFCHR => "device",
                libc::S_IFIFO => "pipe",
                libc::S_IFREG => "file",
                _ => "other",
            };
            open.push(format!("{number} {kind}"));
        }
    }
    open.join(", ")
}

/// Calls `fstat` directly: the C library may use a call that the filter blocks.
fn look(number: libc::c_int, found: &mut libc::stat) -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: the call fills the structure or fails.
    return unsafe { libc::syscall(libc::SYS_fstat, number, &raw mut *found) } == 0;
    #[cfg(not(target_os = "linux"))]
    // SAFETY: as above.
    return unsafe { libc::fstat(number, found) } == 0;
}

/// Makes every system call that a decoder does not need, and restricted calls with forbidden arguments; lists those
/// that succeeded.
#[cfg(target_os = "linux")]
pub(super) fn calls() -> String {
    const LAST: libc::c_long = 1_024;
    /// `uretprobe` and `uprobe` on x86: seccomp does not filter them, and the kernel kills the caller.
    const PROBES: [libc::c_long; 2] = [335, 336];
    let mut reached = Vec::new();
    let mut tried = 0;
    let mut attempt = |name: String, call: libc::c_long, arguments: [libc::c_long; 6]| {
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the filter refuses the call before it has an effect; otherwise the test fails.
        let outcome = unsafe { libc::syscall(call, a, b, c, d, e, f) };
        tried += 1;
        if outcome != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::EPERM) {
            reached.push(name);
        }
    };
    for call in (0..=LAST).filter(|call| !super::super::layers::is_needed(*call) && !PROBES.contains(call)) {
        attempt(format!("call {call}"), call, [-1; 6]);
    }
    let own = libc::c_long::from(rustix::process::getpid().as_raw_nonzero().get());
    let parent = PARENT.get().copied().unwrap_or(1);
    for (whom, id) in [("the parent", parent), ("everybody", -1), ("process 1", 1)] {
        attempt(format!("tgkill of {whom}"), libc::SYS_tgkill, [id, id, 0, 0, 0, 0]);
        attempt(format!("tkill of {whom}"), libc::SYS_tkill, [id, 0, 0, 0, 0, 0]);
        attempt(format!("kill of {whom}"), libc::SYS_kill, [id, 0, 0, 0, 0, 0]);
    }
    attempt("kill of itself".into(), libc::SYS_kill, [own, 0, 0, 0, 0, 0]);
    let code = libc::c_long::from(libc::PROT_READ | libc::PROT_EXEC);
    let mapping = libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    attempt("mmap of code".into(), libc::SYS_mmap, [0, 4_096, code, mapping, -1, 0]);
    attempt("mprotect to code".into(), libc::SYS_mprotect, [0, 4_096, code, 0, 0, 0]);
    // SAFETY: signal 0 has no effect.
    let itself = unsafe { libc::syscall(libc::SYS_tgkill, own, own, 0) } == 0;
    format!("{tried} calls; reached: [{}]; tgkill of itself: {itself}", reached.join(", "))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn calls() -> String {
    "no call is refused".into()
}
