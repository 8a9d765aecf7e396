//! Faults that no picture is known to cause, for trying out what follows from them. In debug builds alone.

use std::hint::black_box;

/// Which fault: `abort`, `overflow`, `memory` or `spin`.
pub(super) const VARIABLE: &str = "DECODER_FAULT";

/// A picture that holds these bytes brings its decoder down.
const MARK: &[u8] = b"pm-fault";

/// Does what the variable says to whoever decodes a marked picture.
pub(super) fn strike(source: &[u8]) {
    let Ok(fault) = std::env::var(VARIABLE) else { return };
    if !source.windows(MARK.len()).any(|bytes| bytes == MARK) {
        return;
    }
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
        _ => {}
    }
}

#[allow(unconditional_recursion, reason = "the stack is to run over")]
fn deeper(depth: u64) -> u64 {
    black_box([depth; 64])[0] + deeper(depth + 1)
}
