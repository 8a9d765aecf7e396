//! Main loop of a decoder process.
//!
//! The process waits at the socket on its standard input, over which the worker sends one socket per task. For each
//! task it forks a child that has only this socket. The child applies the sandbox, does the task and exits; so no image
//! sees data of another image, and no child can reach the worker after its exit. The decoder process itself never reads
//! image bytes. If a child dies, the decoder exits with a code that reports why.

use std::{
    fs::File,
    io::{self, IoSliceMut, Read as _},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    process::ExitCode,
};

use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, WaitOptions, getpid, getppid, waitpid},
};

use super::{
    descriptors,
    fork::{Side, fork},
    layers::{Bounds, Outer, SandboxLayers},
    message::{self, Answer, Task, Work},
};
use crate::imaging::{self, Processed};

/// The argument that makes a program run as a decoder.
pub const ARGUMENT: &str = "decoder";

/// Added to a signal's number: exit code of a decoder whose child was killed by that signal.
pub(super) const BY_SIGNAL: u8 = 128;

/// Byte sent to the worker when a child has exited.
const ENDED: u8 = b'.';

/// Runs until the worker closes the socket. Call it first in `main`: the process must have one thread.
pub fn run() -> ExitCode {
    // Errors are reported in the answer, not on standard error.
    std::panic::set_hook(Box::new(|_| {}));
    descriptors::close_inherited();
    let control = rustix::stdio::stdin();
    let outer = Outer::raise();
    end_with_parent();
    let own = getpid();
    while let Some(socket) = next_socket(control) {
        match fork() {
            Ok(Side::Child) => return work(&File::from(socket), &outer, own),
            Ok(Side::Parent(copy)) => {
                // The worker sees the end of the child's socket only if no other process holds it.
                drop(socket);
                match waitpid(Some(copy), WaitOptions::empty()) {
                    Ok(Some((_, status))) if status.exit_status() == Some(0) => {
                        if rustix::io::write(control, &[ENDED]).is_err() {
                            return ExitCode::SUCCESS;
                        }
                    }
                    Ok(Some((_, status))) => return exit_code(status.exit_status(), status.terminating_signal()),
                    _ => return ExitCode::FAILURE,
                }
            }
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

/// Waits for the next task's socket; returns `None` when the worker is gone.
fn next_socket(control: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    loop {
        let mut received = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8];
        match recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut received, RecvFlags::empty()) {
            Ok(message) if message.bytes > 0 => {
                return received.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                    _ => None,
                });
            }
            Err(rustix::io::Errno::INTR) => {}
            _ => return None,
        }
    }
}

fn exit_code(code: Option<i32>, signal: Option<i32>) -> ExitCode {
    let by_signal = signal.and_then(|signal| u8::try_from(signal).ok()?.checked_add(BY_SIGNAL));
    by_signal.or_else(|| u8::try_from(code?).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Runs one task in the child; `parent` is the decoder process.
fn work(socket: &File, outer: &Outer, parent: Pid) -> ExitCode {
    end_with_parent();
    // The parent may have exited before `end_with_parent` took effect. The control socket is replaced, because only the
    // parent may use it.
    if getppid() != Some(parent) || rustix::stdio::dup2_stdin(rustix::stdio::stderr()).is_err() {
        return ExitCode::FAILURE;
    }
    match answer(socket, outer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Kills this process when its parent dies. On other systems the closed socket and the CPU limit end it.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

fn answer(mut socket: &File, outer: &Outer) -> io::Result<()> {
    #[cfg(debug_assertions)]
    super::fault::begin(socket)?;
    let task: Task = message::read(&mut socket)?;
    let mut layers = outer.close(&Bounds { memory: task.memory, time: task.time });
    if task.needs_layers || task.work == Work::TrySandbox {
        layers = layers.tried_out();
    }
    let mut source = vec![0; usize::try_from(task.source_bytes).map_err(|_| message::too_long())?];
    socket.read_exact(&mut source)?;
    // If every layer is required and one is missing, do not decode.
    if task.needs_layers && !layers.are_complete() {
        return message::reply(&mut socket, &task.nonce, Answer::SandboxLayers(layers), &[]);
    }
    #[cfg(debug_assertions)]
    let found = match task.work {
        Work::Process | Work::Probe => super::fault::strike(&source),
        Work::Measure | Work::TrySandbox => None,
    };
    #[cfg(not(debug_assertions))]
    let found = None;
    let (answer, files) = match found {
        Some(reason) => (Answer::Processed(Err(imaging::Error::Undecodable { reason })), Vec::new()),
        None => done(&task, &source, layers),
    };
    #[cfg(debug_assertions)]
    if super::fault::forge(socket, &task, &source, (&answer, &files))? {
        return Ok(());
    }
    message::reply(&mut socket, &task.nonce, answer, &files)
}

/// Does the task; returns the answer and the files that it announces.
fn done(task: &Task, source: &[u8], layers: SandboxLayers) -> (Answer, Vec<Vec<u8>>) {
    let Task { presets, limits, .. } = task;
    let answer = match task.work {
        Work::TrySandbox => Answer::SandboxLayers(layers),
        Work::Measure => Answer::Measured(imaging::memory_needed(source, presets, limits)),
        Work::Probe => Answer::Probed(imaging::probe(source, limits).map(|probe| probe.format)),
        Work::Process => match imaging::process(source, presets, limits) {
            Ok(processed) => return with_files(processed),
            Err(error) => Answer::Processed(Err(error)),
        },
    };
    (answer, Vec::new())
}

fn with_files(mut processed: Processed) -> (Answer, Vec<Vec<u8>>) {
    let files: Vec<Vec<u8>> =
        processed.renditions.iter_mut().map(|rendition| std::mem::take(&mut rendition.bytes)).collect();
    let sizes = files.iter().map(|file| file.len() as u64).collect();
    (Answer::Processed(Ok((processed, sizes))), files)
}
