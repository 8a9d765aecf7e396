//! Faults that no picture is known to cause, for trying out what follows from them. In debug builds alone.

mod reach;

use std::{
    borrow::Cow,
    env,
    ffi::OsString,
    fs::File,
    hint::black_box,
    io,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::message::{self, Answer, Nonce, Task};

/// Which fault: `abort`, `overflow`, `memory` or `spin` over a marked picture; `calls` or `descriptors`, whose outcome is
/// the picture's error; or a forged answer, as of a decoder that was taken over: `extra`, `late` or `nonce` over a marked
/// picture, `early` to every task.
pub(super) const VARIABLE: &str = "DECODER_FAULT";

/// How many decoders of a process have the fault, the first ones; all unless set.
const DECODERS: &str = "DECODER_FAULT_DECODERS";

/// A picture that holds these bytes brings its decoder down.
const MARK: &[u8] = b"pm-fault";

/// Pixels across and down of a picture in a forged answer.
const FORGED_SIDE: u32 = 666;
/// Forged answers beside the true one: as many as would be taken for those to the next three tasks.
const FORGED: usize = 3;
/// After this a late answer comes.
const LATE: Duration = Duration::from_millis(300);

/// The fault that the next decoder is to have.
pub(super) fn for_decoder() -> Option<OsString> {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let fault = env::var_os(VARIABLE)?;
    let most = env::var(DECODERS).ok().and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    (STARTED.fetch_add(1, Ordering::Relaxed) < most).then_some(fault)
}

/// Does what the variable says to whoever decodes a marked picture; answers what it found.
pub(super) fn strike(source: &[u8]) -> Option<Cow<'static, str>> {
    let fault = fault_over(source)?;
    match fault.as_str() {
        "abort" => std::process::abort(),
        "overflow" => {
            black_box(deeper(0));
        }
        "memory" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(black_box(vec![1_u8; 16 << 20]));
            }
        }
        "spin" => loop {
            black_box(());
        },
        "calls" => return Some(reach::calls().into()),
        "descriptors" => return Some(reach::descriptors().into()),
        _ => {}
    }
    None
}

/// What a copy of a decoder does first of all: it may answer a task that nobody has read.
pub(super) fn begin(mut socket: &File) -> io::Result<()> {
    reach::remember_parent();
    if env::var(VARIABLE).is_ok_and(|fault| fault == "early") {
        message::reply(&mut socket, &Nonce::random(), Answer::Measured(Ok(1)), &[])?;
    }
    Ok(())
}

/// Forges answers if that is the fault; whether the true one has been written.
pub(super) fn forge(
    mut socket: &File,
    task: &Task,
    source: &[u8],
    (answer, files): (&Answer, &[Vec<u8>]),
) -> io::Result<bool> {
    let Some(fault) = fault_over(source) else { return Ok(false) };
    let Answer::Processed(Ok((processed, sizes))) = answer else { return Ok(false) };
    let mut forged = processed.clone();
    (forged.width, forged.height) = (FORGED_SIDE, FORGED_SIDE);
    let forged = Answer::Processed(Ok((forged, sizes.clone())));
    match fault.as_str() {
        "extra" => {
            message::reply(&mut socket, &task.nonce, answer.clone(), files)?;
            for _ in 0..FORGED {
                message::reply(&mut socket, &task.nonce, forged.clone(), files)?;
            }
        }
        "late" => {
            message::reply(&mut socket, &task.nonce, answer.clone(), files)?;
            let begun = Instant::now();
            // A decoder cannot sleep.
            while begun.elapsed() < LATE {
                black_box(());
            }
            message::reply(&mut socket, &task.nonce, forged, files)?;
        }
        "nonce" => message::reply(&mut socket, &Nonce::random(), forged, files)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The fault, if the picture is marked.
fn fault_over(source: &[u8]) -> Option<String> {
    let fault = env::var(VARIABLE).ok()?;
    source.windows(MARK.len()).any(|bytes| bytes == MARK).then_some(fault)
}

#[allow(unconditional_recursion, reason = "the stack is to run over")]
fn deeper(depth: u64) -> u64 {
    black_box([depth; 64])[0] + deeper(depth + 1)
}
