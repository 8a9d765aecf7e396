//! The result of a command: exit code, error message, causes and a hint, with passwords masked.

use std::{fmt, io, process::ExitCode};

use crate::{catalog, config, db, domain::Invalid};

/// The exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// The command succeeded.
    Done = 0,
    /// The command failed.
    Failed = 1,
    /// Arguments or settings are invalid.
    Usage = 2,
    /// The requested item does not exist.
    NotFound = 3,
    /// A part of the work failed.
    Partly = 4,
    /// A component does not answer.
    Unreachable = 5,
    /// A signal stopped the command.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// Creates a failure with a message.
    pub(super) fn new(exit: Exit, sentence: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { exit, error: anyhow::Error::msg(sentence), hint: None }
    }

    /// Creates a failure from an error.
    pub(super) fn because(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// Creates the failure of an interrupted command; `hint` says how to continue.
    pub(super) fn interrupted(hint: impl Into<String>) -> Self {
        Self::new(Exit::Interrupted, "interrupted").hint(hint)
    }

    /// Creates a failure from invalid fields; `spell` maps a field to its flag.
    pub(super) fn invalid(invalid: &Invalid, spell: impl Fn(&str) -> String) -> Self {
        let errors = &invalid.errors;
        let mut lines: Vec<_> =
            errors.listed().iter().map(|error| format!("{} {}", spell(&error.field), error.message)).collect();
        if errors.more() > 0 {
            lines.push(format!("and {} more errors", errors.more()));
        }
        Self::new(Exit::Usage, lines.join("\n"))
    }

    /// Adds a hint.
    #[must_use]
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds context, such as the affected file; the original error becomes the cause.
    #[must_use]
    pub(super) fn context(self, sentence: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self { error: self.error.context(sentence), ..self }
    }

    /// Prints the failure to stderr; prints nothing after a closed pipe, which is no failure.
    pub(super) fn report(&self) -> Exit {
        // If stderr is closed too, the error cannot be reported.
        let _ = io::Write::write_all(&mut io::stderr(), self.to_string().as_bytes());
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exit == Exit::Done {
            return Ok(());
        }
        let mut message = indented(&self.error.to_string());
        // An interruption is no error.
        let head = if self.exit == Exit::Interrupted { "" } else { "error: " };
        writeln!(f, "{head}{message}")?;
        for cause in self.error.chain().skip(1) {
            let cause = indented(&cause.to_string());
            // Many errors repeat their cause in their own message.
            if !message.contains(&cause) {
                writeln!(f, "cause: {cause}")?;
                message = cause;
            }
        }
        self.hint.iter().try_for_each(|hint| writeln!(f, "hint: {hint}"))
    }
}

fn indented(text: &str) -> String {
    config::redact(text.trim_end()).replace('\n', "\n       ")
}

/// Converts an error of writing to stdout; a closed pipe is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Failed };
        Self::because(exit, anyhow::Error::new(error).context("cannot write the output"))
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::because(Exit::Usage, error)
    }
}

impl From<catalog::Error> for Failure {
    fn from(error: catalog::Error) -> Self {
        use catalog::Error::{Invalid, NotConfigured, NotFound, Unavailable};
        let exit = match &error {
            Invalid(_) | NotConfigured(_) => Exit::Usage,
            NotFound { .. } => Exit::NotFound,
            Unavailable { .. } => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let hint = helpful_hint(&error);
        let failure = Self::because(exit, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Returns a hint if the settings do not fit the database server.
pub(super) fn database_hint(error: &db::Error) -> Option<&'static str> {
    match error {
        db::Error::SessionLost(_) => Some(
            "set PM_DATABASE_POOLER=transaction, or `auto` to let pm detect a pooler; PM_DATABASE_DIRECT_URL can name \
             a connection without a pooler",
        ),
        error if error.lacks_connections() => Some(
            "raise max_connections of PostgreSQL, or max_client_conn of the pooler; or lower \
             PM_DATABASE_MAX_CONNECTIONS of all processes",
        ),
        _ => None,
    }
}

fn helpful_hint(error: &catalog::Error) -> Option<&'static str> {
    if let catalog::Error::Unavailable { source, .. } | catalog::Error::Internal(source) = error
        && let Some(hint) = source.downcast_ref::<db::Error>().and_then(database_hint)
    {
        return Some(hint);
    }
    match error {
        catalog::Error::Unavailable { .. } => Some("`pm config` shows the configured address and its source"),
        catalog::Error::BlobGone { .. } => Some("run the same command again to store it again"),
        catalog::Error::Backlog { .. } => {
            Some("wait until workers have processed some images, or raise PM_MAX_WAITING_JOBS_PER_USER")
        }
        catalog::Error::Copying => Some("run the same command again after the backup or restore has ended"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_failure_shows_each_cause_once_and_masks_passwords() {
        let inner = io::Error::other("postgres://pm:hunter2@db refused");
        let error = catalog::Error::Unavailable { component: "database", source: Arc::new(inner) };
        let failure = Failure::from(error);
        let expected = "error: the database does not answer\ncause: postgres://pm:***@db refused\n\
            hint: `pm config` shows the configured address and its source\n";
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.exit, Exit::Unreachable);
    }

    #[test]
    fn a_closed_pipe_is_silent_and_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.to_string().as_str(), failure.exit), ("", Exit::Done));
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Failed);
    }

    #[test]
    fn every_exit_code_is_in_the_documentation() {
        let page = include_str!("../../docs/ERRORS.md");
        let page = page.split("\n## ").find(|section| section.starts_with("Exit codes")).expect("a section");
        let all =
            [Exit::Done, Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Partly, Exit::Unreachable, Exit::Interrupted];
        for exit in all {
            assert!(page.contains(&format!("\n| {} | ", exit as u8)), "docs/ERRORS.md does not explain {exit:?}");
        }
    }

    #[test]
    fn invalid_fields_are_reported_under_the_names_of_flags() {
        let invalid = Invalid::field("min_price", "must not be negative");
        let failure = Failure::invalid(&invalid, |field| format!("--{}", field.replace('_', "-")));
        assert_eq!(failure.to_string(), "error: --min-price must not be negative\n");
    }
}
