//! The guard: a process of its own that ends and removes everything once the experiments are over, however they ended:
//! after a panic, after Ctrl-C, and after a `kill -9` of this program. It acts when the pipe from it is closed.
//!
//! It ends only processes that carry this run's mark in their environment, or whose number and start it was told.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::processes::{self, tree};

/// Tells a copy of this program that it is a guard, and of which directory.
const ROLE: &str = "PM_CHAOS_GUARD";

static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// The running guard and the directory it looks after.
pub struct Guard {
    root: PathBuf,
    child: Child,
}

impl Guard {
    /// Makes the directory of this run and starts its guard.
    ///
    /// # Errors
    /// If there is no room for the directory or the copy of this program cannot be started.
    pub fn start() -> anyhow::Result<Self> {
        use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};

        let root = TempDir::with_prefix("pm-chaos-").context("making a directory")?.keep();
        // The engines may run as another user than this program.
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).context("opening the directory")?;
        let mut child = Command::new(std::env::current_exe().context("finding this program")?)
            .env(ROLE, &root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C goes to a whole group; this one must outlive it.
            .process_group(0)
            .spawn()
            .context("starting the guard")?;
        let pipe = child.stdin.take().context("a guard without a pipe")?;
        PIPE.set(Mutex::new(pipe)).ok().context("there is a guard already")?;
        Ok(Self { root, child })
    }

    /// The directory that is removed at the end.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Ends and removes everything now; with `keep` the directory stays, for whoever looks for the reason of a failure.
    pub fn finish(mut self, keep: bool) {
        if keep {
            tell("keep");
        }
        tell("done");
        // Nothing can be done about a guard that fails here; it says so itself.
        let _ = self.child.wait();
    }
}

/// Notes a process that must not outlive this program.
pub fn watch(pid: u32) {
    tell(&format!("+{pid} {}", tree::started_at(pid).unwrap_or(0)));
}

/// Notes that a process has ended and was waited for.
pub fn unwatch(pid: u32) {
    tell(&format!("-{pid}"));
}

fn tell(line: &str) {
    if let Some(pipe) = PIPE.get() {
        let mut pipe = pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A guard that is gone is no reason to stop: everything is ended by its owners as well.
        let _ = writeln!(pipe, "{line}");
    }
}

/// Runs as the guard if this process was started as one; answers whether it was.
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
        // A number that was given to another process since is none of ours.
        if pid > 1 && tree::started_at(pid) == Some(*started) {
            processes::kill_tree(pid);
        }
    }
    for pid in tree::marked(root) {
        processes::kill_tree(pid);
    }
}

/// What has just been killed may still be writing, so this is tried for a moment.
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
