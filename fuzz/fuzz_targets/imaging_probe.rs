//! Fuzzes the header parsers: accepted images keep the limits, and nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pm::imaging::{Limits, default_presets, memory_needed, probe};
use pm_fuzz::{images, small_limits, small_presets, write_seeds};

fn keeps(source: &[u8], limits: &Limits) {
    let presets = if limits.max_pixels == small_limits().max_pixels { small_presets() } else { default_presets() };
    if let Ok(probe) = probe(source, limits) {
        assert!(probe.width > 0 && probe.height > 0, "{probe:?}");
        assert!(u64::from(probe.width) * u64::from(probe.height) <= limits.max_pixels, "{probe:?}");
        assert!(probe.width.max(probe.height) <= limits.max_side, "{probe:?}");
        assert!((1..=8).contains(&probe.orientation), "{probe:?}");
        assert!(probe.cost_bytes <= limits.max_memory && probe.cost_bytes >= source.len() as u64, "{probe:?}");
    }
    if let Ok(needed) = memory_needed(source, &presets, limits) {
        assert!(needed <= limits.max_memory && needed >= source.len() as u64, "{needed}");
    }
}

fuzz_target!(
    init: write_seeds(images()),
    |source: &[u8]| {
        keeps(source, &Limits::default());
        keeps(source, &small_limits());
    }
);
