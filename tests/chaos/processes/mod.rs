//! Programs as real processes: started in groups of their own, killed, frozen and ended by their numbers, never by name.

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

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What it is called in messages; also the name of its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment, but for `PATH` and the mark, which are added.
    pub environment: BTreeMap<String, String>,
    /// Its working directory; the mark names it.
    pub directory: PathBuf,
    /// User and group, if not this program's own.
    pub user: Option<(u32, u32)>,
}

/// A running process with everything that descends from it; all of it is killed when this is dropped.
pub struct Process {
    name: String,
    pid: u32,
    child: Child,
    log: PathBuf,
    /// How long the log was before this process began.
    log_begins: usize,
}

/// The kernel ends what was killed within this, unless its disk hangs.
const KILL_LIMIT: Duration = Duration::from_secs(30);

impl Spec {
    /// `program` without arguments, in `directory`, as this user, with nothing in its environment.
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

    /// With these arguments at the end.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Where its output goes: `NAME.log` in its directory, everything that ever ran under the name.
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
    ///
    /// # Errors
    /// If the program cannot be started.
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

    /// Runs it to its end, which must come within `limit`; its output is in the answer.
    ///
    /// # Errors
    /// If it cannot be started or does not end; it is killed then.
    pub async fn run(&self, limit: Duration) -> anyhow::Result<Output> {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        let pid = child.id();
        guard::watch(pid);
        // Reads both pipes to their ends, so that neither ever fills up.
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

    /// As [`run`](Self::run), and it must succeed; answers what it wrote to its standard output.
    ///
    /// # Errors
    /// If it fails, with what it wrote to its standard error.
    pub async fn succeed(&self, limit: Duration) -> anyhow::Result<String> {
        let output = self.run(limit).await?;
        let told = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{} {:?}: {}: {told}", self.name, self.arguments, output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Process {
    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.log_begins..).unwrap_or_default()).into_owned()
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it with all its descendants, and waits until it is gone.
    pub async fn kill(&mut self) {
        kill_tree(self.pid);
        let _ = self.ended(KILL_LIMIT).await;
    }

    /// Kills only the process itself: its children have to notice that by themselves.
    pub async fn kill_alone(&mut self) {
        signal(self.pid, Signal::KILL);
        let _ = self.ended(KILL_LIMIT).await;
    }

    /// Stops it and all its descendants in their tracks.
    pub fn freeze(&self) {
        // The parent first: what it starts meanwhile is found by the second look.
        for _ in 0..2 {
            tree::family(self.pid).into_iter().for_each(|pid| signal(pid, Signal::STOP));
        }
    }

    /// Lets it and all its descendants go on.
    pub fn thaw(&self) {
        tree::family(self.pid).into_iter().for_each(|pid| signal(pid, Signal::CONT));
    }

    /// Asks it alone for an orderly end.
    pub fn terminate(&self) {
        signal(self.pid, Signal::TERM);
    }

    /// Asks it alone for an end by the signal that Ctrl-C sends.
    pub fn interrupt(&self) {
        signal(self.pid, Signal::INT);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not come within `limit`.
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
        // A number may only be used as long as the process was not waited for.
        if self.is_running() {
            kill_tree(self.pid);
            let _ = self.child.wait();
        }
        guard::unwatch(self.pid);
    }
}

/// Kills a process, all that descend from it and all of its group.
pub fn kill_tree(pid: u32) {
    // Those that were started between the look and the kill are found by the next look, through their group.
    for _ in 0..2 {
        tree::family(pid).into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }
}

fn signal(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // Fails only if it is gone already.
    let _ = rustix::process::kill_process(pid, signal);
}
