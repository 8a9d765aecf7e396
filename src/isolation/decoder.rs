//! The process that pictures are decoded in. It waits at the socket that is its input, over which it is sent a socket of its
//! own for each piece of work. For each it makes a copy of itself that has this socket and nothing else, does the work between
//! closed walls and ends; so no picture meets what another one left behind, and no copy can reach the worker after its end.
//! This process itself never reads a byte of a picture. A copy that dies takes it along, and its end tells how.

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
    message::{self, Answer, Task, Work},
    walls::{Bounds, Outer, Walls},
};
use crate::imaging::{self, Processed};

/// The only argument of a program that is to become a decoder.
pub const ARGUMENT: &str = "decoder";

/// A decoder's end tells by which signal a copy of it was ended: its number and this.
pub(super) const BY_SIGNAL: u8 = 128;

/// Said to the worker when a copy has ended.
const ENDED: u8 = b'.';

/// Works until the other side of the socket is gone. To be called before the process does anything else: it must have
/// one thread.
pub fn run() -> ExitCode {
    // What a decoder thinks of a picture is said in the answer.
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
                // The worker sees the end of the copy's socket only if nobody else has it.
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

/// Waits for the socket of the next piece of work; `None` when there will be none.
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
    let told = signal.and_then(|signal| u8::try_from(signal).ok()?.checked_add(BY_SIGNAL));
    told.or_else(|| u8::try_from(code?).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// What a copy does; `parent` is the process that it is a copy of.
fn work(socket: &File, outer: &Outer, parent: Pid) -> ExitCode {
    end_with_parent();
    // A parent that ended before that line would not have been noticed. And only the parent may speak to the worker about
    // anything but this piece of work: its socket is put out of reach.
    if getppid() != Some(parent) || rustix::stdio::dup2_stdin(rustix::stdio::stderr()).is_err() {
        return ExitCode::FAILURE;
    }
    match answer(socket, outer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whoever ends the worker ends its decoders, and whoever ends a decoder ends the copy that is at work. A system without
/// this has the end of the socket and the bound on processor time.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

fn answer(mut socket: &File, outer: &Outer) -> io::Result<()> {
    #[cfg(debug_assertions)]
    super::fault::begin(socket)?;
    let task: Task = message::read(&mut socket)?;
    let mut walls = outer.close(&Bounds { memory: task.memory, time: task.time });
    if task.needs_walls || task.work == Work::TryWalls {
        walls = walls.tried_out();
    }
    let mut source = vec![0; usize::try_from(task.source_bytes).map_err(|_| message::too_long())?];
    socket.read_exact(&mut source)?;
    // A source is not looked at between walls that do not all stand, if all are asked for.
    if task.needs_walls && !walls.are_complete() {
        return message::reply(&mut socket, &task.nonce, Answer::Walls(walls), &[]);
    }
    #[cfg(debug_assertions)]
    let found = match task.work {
        Work::Process | Work::Probe => super::fault::strike(&source),
        Work::Measure | Work::TryWalls => None,
    };
    #[cfg(not(debug_assertions))]
    let found = None;
    let (answer, files) = match found {
        Some(reason) => (Answer::Processed(Err(imaging::Error::Undecodable { reason })), Vec::new()),
        None => done(&task, &source, walls),
    };
    #[cfg(debug_assertions)]
    if super::fault::forge(socket, &task, &source, (&answer, &files))? {
        return Ok(());
    }
    message::reply(&mut socket, &task.nonce, answer, &files)
}

/// Does the work; answers what came of it, and the files that the answer announces.
fn done(task: &Task, source: &[u8], walls: Walls) -> (Answer, Vec<Vec<u8>>) {
    let Task { presets, limits, .. } = task;
    let answer = match task.work {
        Work::TryWalls => Answer::Walls(walls),
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
