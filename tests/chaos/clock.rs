//! Clocks that are wrong: libfaketime in a process of the program or of an engine. The monotonic clock is left alone, as a
//! step of the date leaves it.

use std::path::PathBuf;

use anyhow::Context as _;

/// A wall clock that is off, by as much as its file says at each moment.
#[derive(Clone, Debug)]
pub struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// The variables that are set in a process under such a clock.
    pub const VARIABLES: [&str; 4] =
        ["LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC"];

    /// Finds the library; `None` if it is not installed.
    pub fn library() -> Option<PathBuf> {
        let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let places = places.map(|entry| entry.path()).chain([PathBuf::from("/usr/lib")]);
        places.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
    }

    /// A clock that is off by `seconds`; `file` is where that is written.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(library: PathBuf, file: PathBuf, seconds: i64) -> anyhow::Result<Self> {
        let clock = Self { library, file };
        clock.step_to(seconds)?;
        Ok(clock)
    }

    /// Lets it be off by `seconds` from now on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn step_to(&self, seconds: i64) -> anyhow::Result<()> {
        // Renamed into its place: a process may read it at any moment.
        let unfinished = self.file.with_extension("new");
        std::fs::write(&unfinished, format!("{seconds:+}\n")).context("writing a clock's file")?;
        std::fs::rename(&unfinished, &self.file).context("writing a clock's file")
    }

    /// What a process needs in its environment.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        let [library, file, no_cache, monotonic] = Self::VARIABLES;
        [
            (library, self.library.display().to_string()),
            (file, self.file.display().to_string()),
            (no_cache, "1".to_owned()),
            (monotonic, "1".to_owned()),
        ]
    }
}
