//! The findings of `pm doctor`, and the exit code that follows from them.

use serde::Serialize;

use crate::{
    cli::{failure::Exit, output::Row},
    health::Component,
    maintenance::{self, Invariant, Repair},
};

pub(super) const OK: &str = "ok";
/// The check passed with a restriction.
pub(super) const WARNING: &str = "warning";
pub(super) const FAILED: &str = "failed";
/// Maximum number of examples and repairs in a detail.
pub(super) const SHOWN: usize = 5;

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) status: &'static str,
    pub(super) detail: String,
    /// Number of rows, blobs or entries that violate the invariant.
    pub(super) count: u64,
    /// Up to 100 of them.
    pub(super) examples: Vec<String>,
    /// What was repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) repaired: Vec<Repair>,
    /// What could not be repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) left: Vec<Repair>,
    /// Whether a component did not answer, so that the check says nothing about the data.
    #[serde(skip)]
    pub(super) is_unreachable: bool,
}

impl Finding {
    pub(super) const fn ok(check: &'static str, detail: String) -> Self {
        Self {
            check,
            status: OK,
            detail,
            count: 0,
            examples: Vec::new(),
            repaired: Vec::new(),
            left: Vec::new(),
            is_unreachable: false,
        }
    }

    pub(super) fn warning(check: &'static str, detail: String) -> Self {
        Self { status: WARNING, ..Self::ok(check, detail) }
    }

    pub(super) fn failed(check: &'static str, detail: String) -> Self {
        Self { status: FAILED, ..Self::ok(check, detail) }
    }

    /// Creates the finding of a check that `error` interrupted.
    pub(super) fn interrupted(check: &'static str, error: &dyn std::error::Error, is_transient: bool) -> Self {
        Self { is_unreachable: is_transient, ..Self::failed(check, chain(error)) }
    }

    pub(super) fn broken(found: &maintenance::Finding) -> Self {
        let (wrong, help) = remedy(found.invariant);
        let count = found.broken;
        let shown = &found.examples[..found.examples.len().min(SHOWN)];
        let more = if count > shown.len() as u64 { ", …" } else { "" };
        let detail = format!("{count} {wrong}: {}{more}; {help}", shown.join(", "));
        Self { count, examples: found.examples.clone(), ..Self::failed(found.invariant.name(), detail) }
    }

    pub(super) fn of_component(component: Component) -> Self {
        let Component { name, engine, error, latency, .. } = component;
        match error {
            None => Self::ok(name, format!("{engine}, answers in {:.1} ms", latency.as_secs_f64() * 1e3)),
            Some(error) => Self { is_unreachable: true, ..Self::failed(name, format!("{engine}: {error}")) },
        }
    }
}

/// Returns the exit code of the command.
///
/// An unreachable component takes precedence over violated invariants: the data may be intact.
pub(super) fn exit_of(findings: &[Finding]) -> Exit {
    if findings.iter().any(|finding| finding.is_unreachable) {
        return Exit::Unreachable;
    }
    let failed = findings.iter().any(|finding| finding.status == FAILED);
    let repaired = findings.iter().any(|finding| !finding.repaired.is_empty());
    match (failed, repaired) {
        (false, _) => Exit::Done,
        (true, true) => Exit::Partly,
        (true, false) => Exit::Failed,
    }
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["check", "status", "detail"];
    const FIELDS: &'static [&'static str] = &["check", "status", "detail", "count", "examples"];

    fn id(&self) -> String {
        format!("{} {}", self.check, self.status)
    }

    fn cells(&self) -> Vec<String> {
        vec![self.check.into(), self.status.into(), self.detail.clone()]
    }

    fn fields(&self) -> Vec<String> {
        let mut fields = self.cells();
        fields.extend([self.count.to_string(), self.examples.join(" ")]);
        fields
    }
}

/// Returns the problem of a violated invariant and its remedy.
const fn remedy(invariant: Invariant) -> (&'static str, &'static str) {
    match invariant {
        Invariant::Images => {
            ("images are neither final nor have one live job", "`pm doctor --repair` queues them again")
        }
        Invariant::Blobs => (
            "blobs are missing or do not match their keys",
            "`pm doctor --repair` queues their images again; `--from DIR` copies them from a backup",
        ),
        Invariant::Sources => {
            ("uploaded files are missing or damaged", "`pm doctor --repair --from DIR` copies them from a backup")
        }
        Invariant::Orphans => ("old blobs are not referenced", "`pm gc` or `pm doctor --repair` removes them"),
        Invariant::Unfinished => {
            ("unfinished files of killed processes", "`pm gc` or `pm doctor --repair` removes them")
        }
        Invariant::Outbox => (
            "due jobs were not published to the broker",
            "a running `pm serve` or `pm worker`, or `pm doctor --repair`, publishes them",
        ),
        Invariant::Invalidations => (
            "pending cache invalidations",
            "a running `pm serve` or `pm worker`, or `pm doctor --repair`, applies them",
        ),
        Invariant::Leases => (
            "jobs have leases of dead workers",
            "a running `pm serve` or `pm worker`, or `pm doctor --repair`, requeues them",
        ),
        Invariant::Entries => ("cached products differ from their rows", "`pm doctor --repair` deletes the entries"),
    }
}

/// Formats an error and its causes, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let sentence = next.to_string();
        if !text.contains(&sentence) {
            text = format!("{text}: {sentence}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_component_decides_the_exit_code() {
        let ok = || Finding::ok("schema", String::new());
        let failed = || Finding::failed("images", String::new());
        let interrupted = || Finding::interrupted("secrets", &std::io::Error::other("reset"), true);
        let partly = || Finding { repaired: vec![Repair { what: "image 1".into(), how: "queued again" }], ..failed() };
        assert_eq!(exit_of(&[ok(), ok()]), Exit::Done);
        assert_eq!(exit_of(&[failed(), ok()]), Exit::Failed);
        assert_eq!(exit_of(&[partly(), ok()]), Exit::Partly);
        for findings in [[interrupted(), failed()], [failed(), interrupted()], [partly(), interrupted()]] {
            assert_eq!(exit_of(&findings), Exit::Unreachable);
        }
    }
}
