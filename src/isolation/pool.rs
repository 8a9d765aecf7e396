//! Worker side of isolation: keeps idle decoders and exchanges messages with them.

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
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
    process::{Child, Command},
    sync::Semaphore,
};

use super::{
    Config, DecodeTask, Error, SandboxLayers,
    decoder::{ARGUMENT, BY_SIGNAL},
    message::{self, Answer, Nonce, Reply, Task, Work},
};
use crate::imaging::{Processed, SourceFormat};

/// Decoder processes, started on demand and reused; cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    program: PathBuf,
    time_limit: Duration,
    wall_clock_limit: Duration,
    needs_layers: bool,
    permits: Semaphore,
    idle: Mutex<Vec<Decoder>>,
}

/// A decoder process and its control connection. Dropping it kills the process.
struct Decoder {
    process: Child,
    /// Sends the decoder the socket of each task; the decoder reports here when the child that had the socket has
    /// exited. No child has this connection.
    control: UnixStream,
}

/// Why an exchange with a decoder failed.
enum Broken {
    /// The connection was closed.
    Off,
    /// The decoder violated the protocol: the image may have compromised it.
    Rules(&'static str),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        // `InvalidData` errors come from parsing what the decoder sent.
        if error.kind() == io::ErrorKind::InvalidData { Self::Rules(WRONG_ANSWER) } else { Self::Off }
    }
}

const WRONG_ANSWER: &str = "sent an answer of the wrong kind";
const FOREIGN: &str = "sent an answer to another task";
const MORE: &str = "sent data after its answer";

/// Memory for reading headers, beside the source: a color profile may have to be decompressed.
const MEMORY_OF_HEADERS: u64 = 64 << 20;
/// Address space beyond the estimate: pages and fragmentation need more than the bytes in use.
const SPARE_MEMORY: u64 = 96 << 20;
/// How long to wait for a decoder to exit after its connection closed.
const EXIT_GRACE: Duration = Duration::from_secs(2);

impl Pool {
    pub(super) fn new(program: PathBuf, config: &Config) -> Self {
        let permits = Semaphore::new(config.processes.clamp(1, Semaphore::MAX_PERMITS));
        let Config { time_limit, wall_clock_limit, needs_layers, .. } = *config;
        Self(Arc::new(Inner { program, time_limit, wall_clock_limit, needs_layers, permits, idle: Mutex::default() }))
    }

    pub(super) async fn memory_needed(&self, image: &DecodeTask) -> Result<u64, Error> {
        let task = self.task(Work::Measure, image, image.source.len() as u64 + MEMORY_OF_HEADERS);
        self.ask(&task, &image.source, |answer, _| match answer {
            Answer::Measured(outcome) => Some(outcome),
            _ => None,
        })
        .await
    }

    pub(super) async fn probe(&self, image: &DecodeTask) -> Result<SourceFormat, Error> {
        let task = self.task(Work::Probe, image, image.source.len() as u64 + MEMORY_OF_HEADERS);
        self.ask(&task, &image.source, |answer, _| match answer {
            Answer::Probed(outcome) => Some(outcome),
            _ => None,
        })
        .await
    }

    pub(super) async fn process(&self, image: &DecodeTask, needed: u64) -> Result<Processed, Error> {
        let task = self.task(Work::Process, image, needed + needed / 2 + SPARE_MEMORY);
        let asked = |name: &str| image.presets.iter().any(|preset| preset.name == name);
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
        self.ask(&task, &image.source, take).await
    }

    pub(super) async fn layers(&self) -> Result<SandboxLayers, Error> {
        let nothing =
            DecodeTask { source: bytes::Bytes::new(), presets: Vec::new(), limits: crate::imaging::Limits::default() };
        let task = Task { needs_layers: false, ..self.task(Work::TrySandbox, &nothing, MEMORY_OF_HEADERS) };
        self.ask(&task, &[], |answer, _| match answer {
            Answer::SandboxLayers(layers) => Some(Ok(layers)),
            _ => None,
        })
        .await
    }

    fn task(&self, work: Work, image: &DecodeTask, memory: u64) -> Task {
        Task {
            nonce: Nonce::random(),
            work,
            presets: image.presets.clone(),
            limits: image.limits.clone(),
            memory,
            time: self.0.time_limit,
            needs_layers: self.0.needs_layers,
            source_bytes: image.source.len() as u64,
        }
    }

    /// Runs a task; `take` extracts the expected result from the answer, or returns `None` for any other answer. A
    /// decoder that violates the protocol, or whose caller no longer waits, is killed.
    async fn ask<T>(
        &self,
        task: &Task,
        source: &[u8],
        take: impl FnOnce(Answer, Vec<Vec<u8>>) -> Option<Result<T, crate::imaging::Error>>,
    ) -> Result<T, Error> {
        // The semaphore is never closed.
        let _permit = self.0.permits.acquire().await.ok();
        let mut decoder = self.decoder().map_err(Error::NotStarted)?;
        let wall_clock_limit = self.0.wall_clock_limit;
        let broken = match tokio::time::timeout(wall_clock_limit, decoder.converse(task, source)).await {
            Ok(Ok((Answer::SandboxLayers(layers), _))) if task.needs_layers && !layers.are_complete() => {
                return Err(Error::Unprotected(layers));
            }
            Ok(Ok((answer, files))) => match take(answer, files) {
                Some(outcome) => {
                    self.idle().push(decoder);
                    return Ok(outcome?);
                }
                None => Broken::Rules(WRONG_ANSWER),
            },
            Ok(Err(broken)) => broken,
            Err(_) => {
                return Err(Error::Died(format!("was killed: no answer within {} s", wall_clock_limit.as_secs())));
            }
        };
        match broken {
            Broken::Off => Err(self.exit_reason(decoder).await),
            Broken::Rules(how) => {
                tracing::warn!(work = ?task.work, "killed a decoder that {how}; its image may have compromised it");
                Err(Error::Died(how.into()))
            }
        }
    }

    /// Returns an idle decoder that is still alive, or starts one.
    fn decoder(&self) -> io::Result<Decoder> {
        loop {
            let idle = self.idle().pop();
            let Some(mut decoder) = idle else { return Decoder::start(&self.0.program) };
            if decoder.process.try_wait()?.is_none() {
                return Ok(decoder);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Decoder>> {
        self.0.idle.lock()
    }

    /// Returns why the connection to a decoder closed.
    async fn exit_reason(&self, mut decoder: Decoder) -> Error {
        match tokio::time::timeout(EXIT_GRACE, decoder.process.wait()).await {
            Ok(Ok(status)) if signal_of(status) == Some(libc::SIGXCPU) => Error::TooSlow(self.0.time_limit),
            Ok(Ok(status)) => Error::Died(manner(status)),
            _ => Error::Died("closed its connection but did not exit".into()),
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
    /// Starts a decoder with an empty environment, so that it knows no settings and no passwords.
    fn start(program: &PathBuf) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair()?;
        let mut command = Command::new(program);
        command.arg(ARGUMENT).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
        // Each image allocates fresh memory; huge pages make its first use much faster.
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

    /// Runs a task over a new socket. When it returns, the child that did the task has exited, sent only the answer,
    /// and cannot read the next task.
    async fn converse(&mut self, task: &Task, source: &[u8]) -> Result<(Answer, Vec<Vec<u8>>), Broken> {
        let (ours, theirs) = Socket::pair()?;
        ours.set_nonblocking(true)?;
        let mut line = UnixStream::from_std(ours)?;
        self.hand_over(theirs).await?;
        let answer = converse(&mut line, task, source).await?;
        // Only the child that works on this task has the other end.
        if line.read(&mut [0]).await? > 0 {
            return Err(Broken::Rules(MORE));
        }
        self.control.read_exact(&mut [0]).await?;
        Ok(answer)
    }

    /// Sends the decoder its end of a task's socket.
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
    // All renditions fit into the task's memory limit.
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

/// Returns the signal that killed a decoder or its child.
fn signal_of(status: ExitStatus) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let of_child = || status.code().filter(|code| *code > i32::from(BY_SIGNAL)).map(|code| code - i32::from(BY_SIGNAL));
    status.signal().or_else(of_child)
}

fn manner(status: ExitStatus) -> String {
    match signal_of(status) {
        Some(libc::SIGABRT) => "aborted: out of memory or out of stack".into(),
        Some(libc::SIGSEGV | libc::SIGBUS) => "crashed with a segmentation fault".into(),
        Some(libc::SIGKILL) => "was killed by another process or by the kernel".into(),
        Some(signal) => format!("was killed by signal {signal}"),
        None => "exited before it answered".into(),
    }
}
