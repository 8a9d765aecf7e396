//! How the C library's allocator gives memory back, for the long life of `pm serve` and `pm worker`.
//!
//! glibc keeps what was freed in up to eight arenas a core, each with holes of its own, and learns to take ever larger blocks
//! from them: after one file of 20 MB it keeps files of 20 MB in its arenas as well. A process with many threads then holds
//! several times what it uses. Other C libraries are left as they are.

/// Bounds what freed memory the process keeps. Called once, before there are threads.
pub fn bound_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::bound();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    #![allow(unsafe_code)]

    use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int, mallopt};

    /// Threads share this many arenas.
    const ARENAS: c_int = 2;
    /// Larger blocks are mapped alone and given back as soon as they are freed. Setting it also ends its growth.
    const MAPPED_BLOCK_BYTES: c_int = 256 * 1024;
    /// More free memory than this at the end of the heap is given back.
    const KEPT_BYTES: c_int = 1 << 20;

    pub(super) fn bound() {
        // What is set by whoever starts the process wins: its variables were read before `main`.
        let settings = [
            (M_ARENA_MAX, ARENAS, "MALLOC_ARENA_MAX"),
            (M_MMAP_THRESHOLD, MAPPED_BLOCK_BYTES, "MALLOC_MMAP_THRESHOLD_"),
            (M_TRIM_THRESHOLD, KEPT_BYTES, "MALLOC_TRIM_THRESHOLD_"),
        ];
        for (setting, value, variable) in settings {
            if std::env::var_os(variable).is_none() {
                // SAFETY: `mallopt` takes two numbers and touches nothing of ours; it fails only for unknown settings.
                unsafe { mallopt(setting, value) };
            }
        }
    }
}
