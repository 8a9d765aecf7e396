//! The worker's side: decoders that wait for the next picture, and the conversation about one.

use std::{
    fmt, io,
    os::{fd::OwnedFd, unix::net::UnixStream as Socket},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, ChildStdout, Command},
    sync::Semaphore,
};

use super::{
    Error, Picture, Walls,
    decoder::{ARGUMENT, BY_SIGNAL},
    message::{self, Answer, Task, Work},
};
use crate::imaging::Processed;

/// Decoders, started when they are needed and kept; cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    program: PathBuf,
    time_limit: Duration,
    patience: Duration,
    seats: Semaphore,
    idle: Mutex<Vec<Decoder>>,
}

/// A process and the line to it. Dropping it ends the process.
struct Decoder {
    process: Child,
    line: UnixStream,
    /// Where the process says that a copy of it has ended.
    reports: ChildStdout,
}

/// Reading headers takes little beside the source itself: a colour profile may have to be unpacked.
const MEMORY_OF_HEADERS: u64 = 64 << 20;
/// Memory is given out by the page and freed in pieces: the address space has to be larger than what is used at a time.
const SPARE_MEMORY: u64 = 96 << 20;
/// How long the end of a process that said nothing more may take.
const LAST_BREATH: Duration = Duration::from_secs(2);

impl Pool {
    pub(super) fn new(program: PathBuf, time_limit: Duration, patience: Duration, processes: usize) -> Self {
        let seats = Semaphore::new(processes.clamp(1, Semaphore::MAX_PERMITS));
        Self(Arc::new(Inner { program, time_limit, patience, seats, idle: Mutex::default() }))
    }

    pub(super) async fn memory_needed(&self, picture: &Picture) -> Result<u64, Error> {
        let task = self.task(Work::Measure, picture, picture.source.len() as u64 + MEMORY_OF_HEADERS);
        match self.ask(&task, &picture.source).await?.0 {
            Answer::Measured(outcome) => Ok(outcome?),
            _ => Err(nonsense()),
        }
    }

    pub(super) async fn process(&self, picture: &Picture, needed: u64) -> Result<Processed, Error> {
        let task = self.task(Work::Process, picture, needed + needed / 2 + SPARE_MEMORY);
        let (answer, files) = self.ask(&task, &picture.source).await?;
        let Answer::Processed(outcome) = answer else { return Err(nonsense()) };
        let (mut processed, _) = outcome?;
        let asked = |name: &str| picture.presets.iter().any(|preset| preset.name == name);
        if processed.renditions.len() != files.len() || !processed.renditions.iter().all(|made| asked(&made.preset)) {
            return Err(nonsense());
        }
        for (made, file) in processed.renditions.iter_mut().zip(files) {
            made.bytes = file;
        }
        Ok(processed)
    }

    pub(super) async fn walls(&self) -> Result<Walls, Error> {
        let nothing =
            Picture { source: bytes::Bytes::new(), presets: Vec::new(), limits: crate::imaging::Limits::default() };
        match self.ask(&self.task(Work::TryWalls, &nothing, MEMORY_OF_HEADERS), &[]).await?.0 {
            Answer::Walls(walls) => Ok(walls),
            _ => Err(nonsense()),
        }
    }

    fn task(&self, work: Work, picture: &Picture, memory: u64) -> Task {
        Task {
            work,
            presets: picture.presets.clone(),
            limits: picture.limits.clone(),
            memory,
            time: self.0.time_limit,
            source_bytes: picture.source.len() as u64,
        }
    }

    /// Whoever stops waiting for the answer ends the decoder, which so never answers the next question with this one's.
    async fn ask(&self, task: &Task, source: &[u8]) -> Result<(Answer, Vec<Vec<u8>>), Error> {
        // The semaphore is never closed.
        let _seat = self.0.seats.acquire().await.ok();
        let mut decoder = self.decoder().map_err(Error::NotStarted)?;
        let patience = self.0.patience;
        match tokio::time::timeout(patience, decoder.converse(task, source)).await {
            Ok(Ok(answer)) => {
                self.idle().push(decoder);
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.autopsy(decoder, error).await),
            Err(_) => Err(Error::Died(format!("was ended, for it gave no answer within {} s", patience.as_secs()))),
        }
    }

    /// One that waits, and is alive still, or a new one.
    fn decoder(&self) -> io::Result<Decoder> {
        loop {
            let idle = self.idle().pop();
            let Some(mut decoder) = idle else { return Decoder::start(&self.0.program) };
            if decoder.process.try_wait()?.is_none() {
                return Ok(decoder);
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Decoder>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the line to a decoder broke off.
    async fn autopsy(&self, mut decoder: Decoder, broken: io::Error) -> Error {
        if broken.kind() == io::ErrorKind::InvalidData {
            return nonsense();
        }
        match tokio::time::timeout(LAST_BREATH, decoder.process.wait()).await {
            Ok(Ok(status)) if signal_of(status) == Some(libc::SIGXCPU) => Error::TooSlow(self.0.time_limit),
            Ok(Ok(status)) => Error::Died(manner(status)),
            _ => Error::Died("gave no sense".into()),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("program", &self.0.program)
            .field("time_limit", &self.0.time_limit)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// Starts one that knows nothing of this process's settings, and so no password.
    fn start(program: &PathBuf) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair()?;
        let mut command = Command::new(program);
        command.arg(ARGUMENT).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
        // Every picture begins with memory that it has not touched yet: in large pages that takes a fraction of the time.
        command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        command.stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/").kill_on_drop(true);
        #[cfg(debug_assertions)]
        if let Some(fault) = std::env::var_os(super::fault::VARIABLE) {
            command.env(super::fault::VARIABLE, fault);
        }
        let mut process = command.spawn()?;
        let reports = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        ours.set_nonblocking(true)?;
        Ok(Self { process, line: UnixStream::from_std(ours)?, reports })
    }

    /// Has a piece of work done. When it is over, whatever did it has ended and hears nothing of the next one.
    async fn converse(&mut self, task: &Task, source: &[u8]) -> io::Result<(Answer, Vec<Vec<u8>>)> {
        let answer = converse(&mut self.line, task, source).await?;
        self.reports.read_exact(&mut [0]).await?;
        Ok(answer)
    }
}

async fn converse(line: &mut UnixStream, task: &Task, source: &[u8]) -> io::Result<(Answer, Vec<Vec<u8>>)> {
    message::send(line, task).await?;
    line.write_all(source).await?;
    let answer = message::receive(line).await?;
    let Answer::Processed(Ok((_, sizes))) = &answer else { return Ok((answer, Vec::new())) };
    // All renditions were in the memory that the picture was given.
    let announced = sizes.iter().try_fold(0_u64, |sum, size| sum.checked_add(*size));
    if announced.is_none_or(|bytes| bytes > task.memory) {
        return Err(message::too_long());
    }
    let mut files = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut file = vec![0; usize::try_from(*size).map_err(|_| message::too_long())?];
        line.read_exact(&mut file).await?;
        files.push(file);
    }
    Ok((answer, files))
}

fn nonsense() -> Error {
    Error::Died("answered with what was not asked for".into())
}

/// The signal by which a decoder, or the copy of it that was at work, was ended.
fn signal_of(status: ExitStatus) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let told = || status.code().filter(|code| *code > i32::from(BY_SIGNAL)).map(|code| code - i32::from(BY_SIGNAL));
    status.signal().or_else(told)
}

fn manner(status: ExitStatus) -> String {
    match signal_of(status) {
        Some(libc::SIGABRT) => "gave up: out of memory or out of stack".into(),
        Some(libc::SIGSEGV | libc::SIGBUS) => "reached for memory that is not its own".into(),
        Some(libc::SIGKILL) => "was ended from outside".into(),
        Some(signal) => format!("was ended by signal {signal}"),
        None => "ended before it had answered".into(),
    }
}
