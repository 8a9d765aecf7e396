//! Fuzzes the whole pipeline: renditions are images of the stated size, headers match the decoded image, and memory
//! stays within the fuzzer's `-rss_limit_mb`.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pm::imaging::{Error, Limits, Processed, Rendered, memory_needed, probe, process};
use pm_fuzz::{end_at_own_panics, images, small_limits, small_presets, write_seeds};

fn check(source: &[u8], processed: &Processed, limits: &Limits) {
    let presets = small_presets();
    let needed = memory_needed(source, &presets, limits).expect("a processed image has passed the header check");
    assert!(needed <= limits.max_memory, "{needed}");
    assert!(u64::from(processed.width) * u64::from(processed.height) <= limits.max_pixels);
    let asked: usize = presets.iter().map(|preset| preset.formats.len()).sum();
    assert_eq!(processed.renditions.len(), asked);
    for made in &processed.renditions {
        check_rendition(made, processed);
    }
}

fn check_rendition(made: &Rendered, processed: &Processed) {
    let read = probe(&made.bytes, &Limits::default())
        .unwrap_or_else(|error| panic!("{} as {} is no image: {error}", made.preset, made.format_name()));
    assert_eq!((read.width, read.height), (made.width, made.height), "{} {}", made.preset, made.format_name());
    assert_eq!(read.format.as_str(), made.format_name());
    assert!(!read.truncated, "{} as {} ends early", made.preset, made.format_name());
    assert!(made.width <= processed.width && made.height <= processed.height, "{} was enlarged", made.preset);
}

fuzz_target!(
    init: {
        end_at_own_panics();
        write_seeds(images());
    },
    |source: &[u8]| -> Corpus {
        let limits = small_limits();
        match process(source, &small_presets(), &limits) {
            Ok(processed) => check(source, &processed, &limits),
            Err(error @ Error::Internal(_)) => panic!("{error}"),
            Err(Error::Empty | Error::UnsupportedFormat { .. }) => return Corpus::Reject,
            Err(_) => {}
        }
        Corpus::Keep
    }
);
