//! Compares every file of a corpus of odd images with its expected outcome.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::code::ErrorCode;

/// Files that deviate from the expected outcome, and why.
const DEVIATIONS: &[(&str, &str)] = &[
    ("Bad_clrsUsed.bmp", "only the count of its colors is wrong, and browsers show it"),
    ("Bad_shortfile.bmp", "what is there of it is shown with a warning"),
    ("zero-loop-count.gif", "it has no frame at all"),
    ("oss-fuzz-36829.jpeg", "it has more pixels than the limits allow"),
    ("clusterfuzz-testcase-minimized-fuzzer_script_tiff-5026894169374720.tif", "it has a JPEG for each plane"),
];

fn is_expected(expected: &str, outcome: &Result<Processed, Error>) -> bool {
    let code = outcome.as_ref().err().map(Error::code);
    match expected {
        "error" => code.is_some(),
        "unsupported" => code == Some(ErrorCode::UnsupportedFormat),
        _ if expected.starts_with("reject by limits") => {
            matches!(code, Some(ErrorCode::TooManyPixels | ErrorCode::TooComplex))
        }
        "bounded time" | "error or partial" => true,
        _ if expected.starts_with("ok or") => true,
        _ if expected.starts_with("ok") => code.is_none(),
        other => panic!("unknown expectation `{other}`"),
    }
}

#[test]
fn corpus_images_have_their_expected_outcome() {
    let Some(corpus) = std::env::var_os("PM_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: PM_CORPUS is not set");
        return;
    };
    let list = std::fs::read_to_string(corpus.join("edge/LIST.tsv")).expect("the corpus has its list");
    let limits = Limits::default();
    let mut wrong = Vec::new();
    for line in list.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (name, expected) = (fields[0], fields[3]);
        let source = std::fs::read(corpus.join("edge").join(name)).expect("the list names files that are there");
        let start = Instant::now();
        let outcome = process(&source, &default_presets(), &limits);
        if let Ok(probed) = probe(&source, &limits) {
            assert!(probed.cost_bytes <= limits.max_memory, "{name} costs {} bytes", probed.cost_bytes);
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{name} took {:?}", start.elapsed());
        let deviates = DEVIATIONS.iter().any(|(ending, _)| name.ends_with(ending));
        if is_expected(expected, &outcome) == deviates {
            let outcome = outcome.map(|processed| processed.warnings);
            wrong.push(format!("{name}: expected {expected}, found {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
