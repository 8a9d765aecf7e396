//! Wrong clocks: runs libfaketime in a process of `pm` or of an engine. The monotonic clock stays correct, as it does
//! when an administrator changes the date.

use std::path::PathBuf;

use anyhow::Context as _;

/// A wall clock that is wrong by the offset in its file, which can change at any time.
#[derive(Clone, Debug)]
pub struct FakeClock {
    faketime: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// Environment variables that put a process under this clock.
    pub const VARIABLES: [&str; 4] =
        ["LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC"];

    /// Finds the library; `None` if it is not installed.
    pub fn library() -> Option<PathBuf> {
        let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let places = places.map(|entry| entry.path()).chain([PathBuf::from("/usr/lib")]);
        places.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
    }

    /// Creates a clock that is wrong by `seconds`; `file` stores the offset.
    pub fn set(faketime: PathBuf, file: PathBuf, seconds: i64) -> anyhow::Result<Self> {
        let clock = Self { faketime, file };
        clock.step_to(seconds)?;
        Ok(clock)
    }

    /// Sets the offset to `seconds`.
    pub fn step_to(&self, seconds: i64) -> anyhow::Result<()> {
        // Written by rename, since a process may read the file at any time.
        let unfinished = self.file.with_extension("new");
        std::fs::write(&unfinished, format!("{seconds:+}\n")).context("writing a clock's file")?;
        std::fs::rename(&unfinished, &self.file).context("writing a clock's file")
    }

    /// Returns the environment variables for a process under this clock.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        let [library, file, no_cache, monotonic] = Self::VARIABLES;
        [
            (library, self.faketime.display().to_string()),
            (file, self.file.display().to_string()),
            (no_cache, "1".to_owned()),
            (monotonic, "1".to_owned()),
        ]
    }
}
