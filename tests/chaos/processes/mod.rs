//! Real processes: started in their own process groups; killed, frozen and stopped by pid, never by name.

pub mod tree;
pub mod usage;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use std::os::unix::process::CommandExt as _;

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

use crate::guard;

/// A program to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name in messages and of its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment, without `PATH` and the mark, which are added.
    pub environment: BTreeMap<String, String>,
    /// Its working directory, which is also the value of the mark.
    pub directory: PathBuf,
    /// User and group, if not those of this program.
    pub user: Option<(u32, u32)>,
}

/// A running process and its descendants; all are killed on drop.
pub struct Process {
    name: String,
    pid: u32,
    child: Child,
    log: PathBuf,
    /// Length of the log before this process started.
    log_begins: usize,
}

/// The kernel ends a killed process within this, unless its disk hangs.
const KILL_LIMIT: Duration = Duration::from_secs(30);

impl Spec {
    /// Creates a program without arguments and environment, in `directory`, as this user.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            directory: directory.into(),
            user: None,
        }
    }

    /// Appends these arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets this environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Returns its log, `NAME.log` in its directory, shared by all processes of this name.
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.environment)
            .env(tree::MARK, &self.directory)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .process_group(0);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Starts it with its output in its log.
    pub fn spawn(&self) -> anyhow::Result<Process> {
        let log = self.log();
        let file = File::options().create(true).append(true).open(&log).context("opening a log")?;
        let log_begins = usize::try_from(file.metadata()?.len())?;
        let mut command = self.command();
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        let pid = child.id();
        guard::watch(pid);
        Ok(Process { name: self.name.clone(), pid, child, log, log_begins })
    }

    /// Runs it to its end within `limit`; returns its output.
    pub async fn run(&self, limit: Duration) -> anyhow::Result<Output> {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        let pid = child.id();
        guard::watch(pid);
        // Reads both pipes concurrently, so that neither fills up.
        let mut ending = tokio::task::spawn_blocking(move || child.wait_with_output());
        let outcome = tokio::time::timeout(limit, &mut ending).await;
        if outcome.is_err() {
            kill_tree(pid);
            let _ = ending.await;
        }
        guard::unwatch(pid);
        let Ok(output) = outcome else {
            anyhow::bail!("{} {:?} took longer than {limit:?}", self.name, self.arguments);
        };
        Ok(output??)
    }

    /// As [`run`](Self::run), and requires success; returns its standard output.
    pub async fn succeed(&self, limit: Duration) -> anyhow::Result<String> {
        let output = self.run(limit).await?;
        let printed = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{} {:?}: {}: {printed}", self.name, self.arguments, output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Process {
    /// Returns its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the path of its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns its output so far.
    pub fn output(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.log_begins..).unwrap_or_default()).into_owned()
    }

    /// Returns whether it is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it with all its descendants, and waits for their end.
    pub async fn kill(&mut self) {
        kill_tree(self.pid);
        let _ = self.ended(KILL_LIMIT).await;
    }

    /// Kills only the process itself; its children must notice.
    pub async fn kill_alone(&mut self) {
        signal(self.pid, Signal::KILL);
        let _ = self.ended(KILL_LIMIT).await;
    }

    /// Freezes it and all its descendants (SIGSTOP).
    pub fn freeze(&self) {
        // The parent first: the second pass finds processes that it started meanwhile.
        for _ in 0..2 {
            tree::family(self.pid).into_iter().for_each(|pid| signal(pid, Signal::STOP));
        }
    }

    /// Resumes it and all its descendants (SIGCONT).
    pub fn thaw(&self) {
        tree::family(self.pid).into_iter().for_each(|pid| signal(pid, Signal::CONT));
    }

    /// Sends SIGTERM to the process alone.
    pub fn terminate(&self) {
        signal(self.pid, Signal::TERM);
    }

    /// Sends SIGINT to the process alone.
    pub fn interrupt(&self) {
        signal(self.pid, Signal::INT);
    }

    /// Waits for its end.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return anyhow::Ok(status);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(status) => status,
            Err(_) => anyhow::bail!("{} (process {}) has not ended within {limit:?}", self.name, self.pid),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A pid is safe to use only while the process is not reaped.
        if self.is_running() {
            kill_tree(self.pid);
            let _ = self.child.wait();
        }
        guard::unwatch(self.pid);
    }
}

/// Kills a process, its descendants and its process group.
pub fn kill_tree(pid: u32) {
    // The next pass finds, by their group, processes that were started before the kill.
    for _ in 0..2 {
        tree::family(pid).into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }
}

fn signal(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // Fails only if the process has already exited.
    let _ = rustix::process::kill_process(pid, signal);
}
