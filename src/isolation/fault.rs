//! Simulates decoder faults for tests, in debug builds only.

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

/// Selects the fault. For a marked image: `abort`, `overflow`, `memory` or `spin`; `calls` or `descriptors`, which
/// report their result as the image's error; `extra`, `late` or `nonce`, which forge answers like a compromised
/// decoder. `early` forges an answer to every task.
pub(super) const VARIABLE: &str = "DECODER_FAULT";

/// Number of decoders with the fault, counted from the first; all if unset.
const DECODERS: &str = "DECODER_FAULT_DECODERS";

/// Marks an image that triggers the fault.
const MARK: &[u8] = b"pm-fault";

/// Width and height in a forged answer, in pixels.
const FORGED_SIDE: u32 = 666;
/// Number of forged answers after the true one.
const FORGED: usize = 3;
/// Delay of a late answer.
const LATE: Duration = Duration::from_millis(300);

/// Returns the fault of the next decoder.
pub(super) fn for_decoder() -> Option<OsString> {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let fault = env::var_os(VARIABLE)?;
    let most = env::var(DECODERS).ok().and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    (STARTED.fetch_add(1, Ordering::Relaxed) < most).then_some(fault)
}

/// Triggers the fault if the image is marked; returns the text to report, if any.
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

/// Runs first in a child; the `early` fault answers a task that was not read.
pub(super) fn begin(mut socket: &File) -> io::Result<()> {
    reach::remember_parent();
    if env::var(VARIABLE).is_ok_and(|fault| fault == "early") {
        message::reply(&mut socket, &Nonce::random(), Answer::Measured(Ok(1)), &[])?;
    }
    Ok(())
}

/// Forges answers for the forging faults; returns whether the true answer was written.
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
            // The sandbox forbids sleeping.
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

/// Returns the fault if the image is marked.
fn fault_over(source: &[u8]) -> Option<String> {
    let fault = env::var(VARIABLE).ok()?;
    source.windows(MARK.len()).any(|bytes| bytes == MARK).then_some(fault)
}

#[allow(unconditional_recursion, reason = "the stack is to run over")]
fn deeper(depth: u64) -> u64 {
    black_box([depth; 64])[0] + deeper(depth + 1)
}
