//! Limits the memory that glibc's allocator keeps after `free`.
//!
//! By default glibc has up to eight arenas per core, each with its own fragmentation, and raises its mmap threshold:
//! after one freed block of 20 MB it serves such blocks from arenas too. A process with many threads then holds several
//! times the memory that it uses. Other C libraries are not configured.

/// Limits freed memory that the process keeps. Call it once, before starting threads.
pub fn bound_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::bound();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    #![allow(unsafe_code)]

    use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int, mallopt};

    /// Number of arenas that all threads share.
    const ARENAS: c_int = 2;
    /// Larger blocks are mapped separately and returned when freed. Setting it also disables its growth.
    const MAPPED_BLOCK_BYTES: c_int = 256 * 1024;
    /// Maximum free memory kept at the end of the heap.
    const TRIM_THRESHOLD_BYTES: c_int = 1 << 20;

    pub(super) fn bound() {
        // Environment variables take precedence: glibc read them before `main`.
        let settings = [
            (M_ARENA_MAX, ARENAS, "MALLOC_ARENA_MAX"),
            (M_MMAP_THRESHOLD, MAPPED_BLOCK_BYTES, "MALLOC_MMAP_THRESHOLD_"),
            (M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES, "MALLOC_TRIM_THRESHOLD_"),
        ];
        for (setting, value, variable) in settings {
            if std::env::var_os(variable).is_none() {
                // SAFETY: `mallopt` takes two integers; it fails only for unknown settings.
                unsafe { mallopt(setting, value) };
            }
        }
    }
}
