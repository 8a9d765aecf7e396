//! The guard: a separate process that kills and removes everything after the experiments, however they ended: after a
//! panic, after Ctrl-C, and after a `kill -9` of this program. It acts when its pipe from this program closes.
//!
//! It kills only processes with this run's mark in their environment, or with a registered pid and start time.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::Context as _;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::processes::{self, tree};

/// Environment variable that makes a copy of this program the guard of a directory.
const ROLE: &str = "PM_CHAOS_GUARD";

static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// The running guard and its directory.
pub struct Guard {
    root: PathBuf,
    child: Child,
}

impl Guard {
    /// Creates the directory of this run and starts its guard.
    pub fn start() -> anyhow::Result<Self> {
        use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};

        let root = TempDir::with_prefix("pm-chaos-").context("making a directory")?.keep();
        // The engines may run as another user.
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).context("opening the directory")?;
        let mut child = Command::new(std::env::current_exe().context("finding this program")?)
            .env(ROLE, &root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C signals the whole process group; the guard must survive it.
            .process_group(0)
            .spawn()
            .context("starting the guard")?;
        let pipe = child.stdin.take().context("a guard without a pipe")?;
        PIPE.set(Mutex::new(pipe)).ok().context("a guard is already running")?;
        Ok(Self { root, child })
    }

    /// Returns the directory that is removed at the end.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Kills and removes everything now; with `keep` the directory stays, to investigate a failure.
    pub fn finish(mut self, keep: bool) {
        if keep {
            tell("keep");
        }
        tell("done");
        // Nothing can be done about a failed guard; it prints the reason itself.
        let _ = self.child.wait();
    }
}

/// Registers a process that must not outlive this program.
pub fn watch(pid: u32) {
    tell(&format!("+{pid} {}", tree::started_at(pid).unwrap_or(0)));
}

/// Records that a process has ended and was reaped.
pub fn unwatch(pid: u32) {
    tell(&format!("-{pid}"));
}

fn tell(line: &str) {
    if let Some(pipe) = PIPE.get() {
        let mut pipe = pipe.lock();
        // A missing guard is no reason to stop: the owners also kill their processes.
        let _ = writeln!(pipe, "{line}");
    }
}

/// Runs as the guard if this process was started as one; returns whether it was.
pub fn ran_as_guard() -> bool {
    let Some(root) = std::env::var_os(ROLE).map(PathBuf::from) else { return false };
    let mut watched = BTreeMap::new();
    let mut keep = false;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_at_checked(1) {
            _ if line == "done" => break,
            _ if line == "keep" => keep = true,
            Some(("+", rest)) => {
                let mut numbers = rest.split(' ').map(|number| number.parse::<u64>().unwrap_or(0));
                watched.insert(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            }
            Some(("-", pid)) => {
                watched.remove(&pid.parse().unwrap_or(0));
            }
            _ => {}
        }
    }
    end(&root, &watched);
    if !keep && let Err(error) = remove(&root) {
        eprintln!("chaos: {} cannot be removed: {error}", root.display());
    }
    true
}

fn end(root: &Path, watched: &BTreeMap<u64, u64>) {
    for (pid, started) in watched {
        let pid = u32::try_from(*pid).unwrap_or(0);
        // If the pid was reused since, the process is not ours.
        if pid > 1 && tree::started_at(pid) == Some(*started) {
            processes::kill_tree(pid);
        }
    }
    for pid in tree::marked(root) {
        processes::kill_tree(pid);
    }
}

/// Removes the directory. Killed processes may still be writing, so it retries for a moment.
fn remove(root: &Path) -> std::io::Result<()> {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        if std::fs::remove_dir_all(root).is_ok() {
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "the guard has no tasks that could wait for this thread")]
        std::thread::sleep(Duration::from_millis(50));
    }
    match std::fs::remove_dir_all(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
