//! Shows the progress of a long command on stderr: a bar on a terminal, else a line every ten seconds.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::maintenance::Step;

/// Delay before the bar appears.
const BAR_DELAY: Duration = Duration::from_secs(1);
/// Interval of progress lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The progress of a command.
pub(super) struct Progress {
    label: &'static str,
    total: u64,
    began: Instant,
    shape: Shape,
}

enum Shape {
    Bar { bar: ProgressBar, hidden: bool },
    Lines { last: Instant },
    Silent,
}

/// The progress of a command with several steps, each with its own bar.
pub(super) struct Steps {
    quiet: bool,
    current: Option<Progress>,
}

impl Steps {
    /// Creates a display without a step.
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, current: None }
    }

    /// Shows the progress of a step; a new step replaces the previous one.
    pub(super) fn show(&mut self, step: Step) {
        if self.current.as_ref().is_some_and(|shown| shown.label != step.name) {
            // Remove the previous bar before the next one appears.
            drop(self.current.take());
        }
        let quiet = self.quiet;
        self.current.get_or_insert_with(|| Progress::new(step.name, step.total, quiet)).set(step.done, 0);
    }
}

impl Progress {
    /// Creates a progress display; a `total` of 0 means unknown.
    ///
    /// `label` names the work, such as `queueing` or `processing`.
    pub(super) fn new(label: &'static str, total: u64, quiet: bool) -> Self {
        let began = Instant::now();
        let shape = if quiet {
            Shape::Silent
        } else if io::stderr().is_terminal() {
            Shape::Bar { bar: bar(label, total), hidden: true }
        } else {
            Shape::Lines { last: began }
        };
        Self { label, total, began, shape }
    }

    /// Sets the number of items done, and how many of these failed.
    pub(super) fn set(&mut self, done: u64, failed: u64) {
        let rate = || done as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        match &mut self.shape {
            Shape::Bar { bar, hidden } => {
                if *hidden && self.began.elapsed() >= BAR_DELAY {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    *hidden = false;
                }
                bar.set_position(done);
                if failed > 0 {
                    bar.set_message(format!("{failed} failed"));
                }
            }
            Shape::Lines { last } if last.elapsed() >= LINE_INTERVAL => {
                *last = Instant::now();
                let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
                let of = if self.total > 0 { format!(" of {}", self.total) } else { String::new() };
                let line = format!("{} {done}{of}, {:.1} a second{failures}", self.label, rate());
                // If stderr is closed, the line is lost.
                let _ = writeln!(io::stderr(), "{line}");
            }
            Shape::Lines { .. } | Shape::Silent => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shape::Bar { bar, .. } = &self.shape {
            bar.finish_and_clear();
        }
    }
}

fn bar(label: &'static str, total: u64) -> ProgressBar {
    const TEMPLATE: &str = "{prefix} {wide_bar} {human_pos}/{human_len} {per_sec}, {eta} left {msg}";
    const ENDLESS: &str = "{prefix} {human_pos}, {per_sec} {msg}";
    let template = if total > 0 { TEMPLATE } else { ENDLESS };
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    let length = (total > 0).then_some(total);
    ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden()).with_style(style).with_prefix(label)
}
