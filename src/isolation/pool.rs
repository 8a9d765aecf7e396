//! The worker's side: decoders that wait for the next picture, and the conversation about one.

use std::{
    fmt,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as Socket,
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
    process::{Child, Command},
    sync::Semaphore,
};

use super::{
    Config, Error, Picture, Walls,
    decoder::{ARGUMENT, BY_SIGNAL},
    message::{self, Answer, Nonce, Reply, Task, Work},
};
use crate::imaging::{Processed, SourceFormat};

/// Decoders, started when they are needed and kept; cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    program: PathBuf,
    time_limit: Duration,
    patience: Duration,
    needs_walls: bool,
    seats: Semaphore,
    idle: Mutex<Vec<Decoder>>,
}

/// A process and the line to it. Dropping it ends the process.
struct Decoder {
    process: Child,
    /// Over this it is sent the socket of each task, and says when the copy of it that had the socket has ended. No copy
    /// has it.
    control: UnixStream,
}

/// Why a conversation ended without an answer that is believed.
enum Broken {
    /// The line broke off.
    Off,
    /// The decoder said what none says that is whole: it may have been taken over by the picture.
    Rules(&'static str),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        // Only what was read is ever found wrong in its form.
        if error.kind() == io::ErrorKind::InvalidData { Self::Rules(NONSENSE) } else { Self::Off }
    }
}

const NONSENSE: &str = "answered with what was not asked for";
const FOREIGN: &str = "gave an answer that is not of its task";
const MORE: &str = "went on after its answer";

/// Reading headers takes little beside the source itself: a colour profile may have to be unpacked.
const MEMORY_OF_HEADERS: u64 = 64 << 20;
/// Memory is given out by the page and freed in pieces: the address space has to be larger than what is used at a time.
const SPARE_MEMORY: u64 = 96 << 20;
/// How long the end of a process that said nothing more may take.
const LAST_BREATH: Duration = Duration::from_secs(2);

impl Pool {
    pub(super) fn new(program: PathBuf, config: &Config) -> Self {
        let seats = Semaphore::new(config.processes.clamp(1, Semaphore::MAX_PERMITS));
        let Config { time_limit, patience, needs_walls, .. } = *config;
        Self(Arc::new(Inner { program, time_limit, patience, needs_walls, seats, idle: Mutex::default() }))
    }

    pub(super) async fn memory_needed(&self, picture: &Picture) -> Result<u64, Error> {
        let task = self.task(Work::Measure, picture, picture.source.len() as u64 + MEMORY_OF_HEADERS);
        self.ask(&task, &picture.source, |answer, _| match answer {
            Answer::Measured(outcome) => Some(outcome),
            _ => None,
        })
        .await
    }

    pub(super) async fn probe(&self, picture: &Picture) -> Result<SourceFormat, Error> {
        let task = self.task(Work::Probe, picture, picture.source.len() as u64 + MEMORY_OF_HEADERS);
        self.ask(&task, &picture.source, |answer, _| match answer {
            Answer::Probed(outcome) => Some(outcome),
            _ => None,
        })
        .await
    }

    pub(super) async fn process(&self, picture: &Picture, needed: u64) -> Result<Processed, Error> {
        let task = self.task(Work::Process, picture, needed + needed / 2 + SPARE_MEMORY);
        let asked = |name: &str| picture.presets.iter().any(|preset| preset.name == name);
        let take = |answer, files: Vec<Vec<u8>>| {
            let Answer::Processed(outcome) = answer else { return None };
            let (mut processed, _) = match outcome {
                Ok(made) => made,
                Err(error) => return Some(Err(error)),
            };
            let made = &mut processed.renditions;
            if made.len() != files.len() || !made.iter().all(|made| asked(&made.preset)) {
                return None;
            }
            made.iter_mut().zip(files).for_each(|(made, file)| made.bytes = file);
            Some(Ok(processed))
        };
        self.ask(&task, &picture.source, take).await
    }

    pub(super) async fn walls(&self) -> Result<Walls, Error> {
        let nothing =
            Picture { source: bytes::Bytes::new(), presets: Vec::new(), limits: crate::imaging::Limits::default() };
        let task = Task { needs_walls: false, ..self.task(Work::TryWalls, &nothing, MEMORY_OF_HEADERS) };
        self.ask(&task, &[], |answer, _| match answer {
            Answer::Walls(walls) => Some(Ok(walls)),
            _ => None,
        })
        .await
    }

    fn task(&self, work: Work, picture: &Picture, memory: u64) -> Task {
        Task {
            nonce: Nonce::random(),
            work,
            presets: picture.presets.clone(),
            limits: picture.limits.clone(),
            memory,
            time: self.0.time_limit,
            needs_walls: self.0.needs_walls,
            source_bytes: picture.source.len() as u64,
        }
    }

    /// Has a task done; `take` makes of the answer what was asked for, and nothing of any other answer. A decoder that broke
    /// the rules is ended, and so is one for whose answer nobody waits any more.
    async fn ask<T>(
        &self,
        task: &Task,
        source: &[u8],
        take: impl FnOnce(Answer, Vec<Vec<u8>>) -> Option<Result<T, crate::imaging::Error>>,
    ) -> Result<T, Error> {
        // The semaphore is never closed.
        let _seat = self.0.seats.acquire().await.ok();
        let mut decoder = self.decoder().map_err(Error::NotStarted)?;
        let patience = self.0.patience;
        let broken = match tokio::time::timeout(patience, decoder.converse(task, source)).await {
            Ok(Ok((Answer::Walls(walls), _))) if task.needs_walls && !walls.are_complete() => {
                return Err(Error::Unprotected(walls));
            }
            Ok(Ok((answer, files))) => match take(answer, files) {
                Some(outcome) => {
                    self.idle().push(decoder);
                    return Ok(outcome?);
                }
                None => Broken::Rules(NONSENSE),
            },
            Ok(Err(broken)) => broken,
            Err(_) => {
                return Err(Error::Died(format!("was ended, for it gave no answer within {} s", patience.as_secs())));
            }
        };
        match broken {
            Broken::Off => Err(self.autopsy(decoder).await),
            Broken::Rules(how) => {
                tracing::warn!(work = ?task.work, "ended a decoder that {how}: its image may have taken it over");
                Err(Error::Died(how.into()))
            }
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
    async fn autopsy(&self, mut decoder: Decoder) -> Error {
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
        command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").kill_on_drop(true);
        #[cfg(debug_assertions)]
        if let Some(fault) = super::fault::for_decoder() {
            command.env(super::fault::VARIABLE, fault);
        }
        let process = command.spawn()?;
        ours.set_nonblocking(true)?;
        Ok(Self { process, control: UnixStream::from_std(ours)? })
    }

    /// Has a task done over a socket that nothing else has ever been said over. When it is over, whatever did it has ended,
    /// said nothing but the answer, and hears nothing of the next one.
    async fn converse(&mut self, task: &Task, source: &[u8]) -> Result<(Answer, Vec<Vec<u8>>), Broken> {
        let (ours, theirs) = Socket::pair()?;
        ours.set_nonblocking(true)?;
        let mut line = UnixStream::from_std(ours)?;
        self.hand_over(theirs).await?;
        let answer = converse(&mut line, task, source).await?;
        // Nobody but the copy of the decoder that is at this task has the other end.
        if line.read(&mut [0]).await? > 0 {
            return Err(Broken::Rules(MORE));
        }
        self.control.read_exact(&mut [0]).await?;
        Ok(answer)
    }

    /// Gives the decoder the other end of a task's socket.
    async fn hand_over(&self, socket: Socket) -> io::Result<()> {
        let send = || {
            let sockets = [socket.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            rights.push(SendAncillaryMessage::ScmRights(&sockets));
            let sent = sendmsg(&self.control, &[IoSlice::new(b"t")], &mut rights, SendFlags::NOSIGNAL)?;
            if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        };
        self.control.async_io(Interest::WRITABLE, send).await
    }
}

async fn converse(line: &mut UnixStream, task: &Task, source: &[u8]) -> Result<(Answer, Vec<Vec<u8>>), Broken> {
    message::send(line, task).await?;
    line.write_all(source).await?;
    let Reply { nonce, answer } = message::receive(line).await?;
    if nonce != task.nonce {
        return Err(Broken::Rules(FOREIGN));
    }
    let Answer::Processed(Ok((_, sizes))) = &answer else { return Ok((answer, Vec::new())) };
    // All renditions were in the memory that the picture was given.
    let announced = sizes.iter().try_fold(0_u64, |sum, size| sum.checked_add(*size));
    if announced.is_none_or(|bytes| bytes > task.memory) {
        return Err(message::too_long().into());
    }
    let mut files = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut file = vec![0; usize::try_from(*size).map_err(|_| message::too_long())?];
        line.read_exact(&mut file).await?;
        files.push(file);
    }
    Ok((answer, files))
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
