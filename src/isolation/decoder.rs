//! The process that pictures are decoded in. It waits for work at the socket that is its input, and for each piece makes a
//! copy of itself that does it between closed walls and ends, which it then reports; so no picture meets what another one
//! left behind. A copy that dies takes this process along, whose end tells how.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use rustix::{
    net::RecvFlags,
    process::{WaitOptions, waitpid},
};

use super::{
    fork::{Side, fork},
    message::{self, Answer, Task, Work},
    walls::{Bounds, Outer},
};
use crate::imaging::{self, Processed};

/// The only argument of a program that is to become a decoder.
pub const ARGUMENT: &str = "decoder";

/// A decoder's end tells by which signal a copy of it was ended: its number and this.
pub(super) const BY_SIGNAL: u8 = 128;

/// Said on the standard output when a copy has ended.
const ENDED: u8 = b'.';

/// Works until the other side of the socket is gone. To be called before the process does anything else: it must have
/// one thread.
pub fn run() -> ExitCode {
    // What a decoder thinks of a picture is said in the answer.
    std::panic::set_hook(Box::new(|_| {}));
    let Ok(socket) = rustix::stdio::stdin().try_clone_to_owned().map(File::from) else { return ExitCode::FAILURE };
    end_with_parent();
    let outer = Outer::raise();
    while is_wanted(&socket) {
        match fork() {
            Ok(Side::Child) => return work(&socket, &outer),
            Ok(Side::Parent(copy)) => match waitpid(Some(copy), WaitOptions::empty()) {
                Ok(Some((_, status))) if status.exit_status() == Some(0) => {
                    if rustix::io::write(rustix::stdio::stdout(), &[ENDED]).is_err() {
                        return ExitCode::SUCCESS;
                    }
                }
                Ok(Some((_, status))) => return exit_code(status.exit_status(), status.terminating_signal()),
                _ => return ExitCode::FAILURE,
            },
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

/// Waits for the first byte of a piece of work and leaves it where it is; `false` when there will be none.
fn is_wanted(socket: &File) -> bool {
    loop {
        match rustix::net::recv(socket, &mut [0_u8; 1], RecvFlags::PEEK) {
            Ok((read, _)) => return read > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn exit_code(code: Option<i32>, signal: Option<i32>) -> ExitCode {
    let told = signal.and_then(|signal| u8::try_from(signal).ok()?.checked_add(BY_SIGNAL));
    told.or_else(|| u8::try_from(code?).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn work(socket: &File, outer: &Outer) -> ExitCode {
    end_with_parent();
    // Only the process that waits may say that this one has ended: until then nobody else's picture is sent.
    if rustix::stdio::dup2_stdout(socket).is_err() {
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
    let task: Task = message::read(&mut socket)?;
    let walls = outer.close(&Bounds { memory: task.memory, time: task.time });
    let mut source = vec![0; usize::try_from(task.source_bytes).map_err(|_| message::too_long())?];
    socket.read_exact(&mut source)?;
    #[cfg(debug_assertions)]
    if task.work == Work::Process {
        super::fault::strike(&source);
    }
    let Task { presets, limits, .. } = task;
    match task.work {
        Work::Measure => {
            let needed = imaging::memory_needed(&source, &presets, &limits);
            message::write(&mut socket, &Answer::Measured(needed))
        }
        Work::TryWalls => message::write(&mut socket, &Answer::Walls(walls.tried_out())),
        Work::Process => match imaging::process(&source, &presets, &limits) {
            Ok(processed) => hand_over(socket, processed),
            Err(error) => message::write(&mut socket, &Answer::Processed(Err(error))),
        },
    }
}

fn hand_over(mut socket: &File, mut processed: Processed) -> io::Result<()> {
    let files: Vec<Vec<u8>> =
        processed.renditions.iter_mut().map(|rendition| std::mem::take(&mut rendition.bytes)).collect();
    let sizes = files.iter().map(|file| file.len() as u64).collect();
    message::write(&mut socket, &Answer::Processed(Ok((processed, sizes))))?;
    files.iter().try_for_each(|file| socket.write_all(file))
}
