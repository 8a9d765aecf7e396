//! How a command ends: its exit code, and for people one sentence, its causes and a hint. Passwords are masked.

use std::{fmt, io, process::ExitCode};

use crate::{catalog, config, db, domain::Invalid};

/// What the process tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All of it was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// Words or settings are wrong.
    Usage = 2,
    /// What was asked for does not exist.
    NotFound = 3,
    /// Some of it failed.
    Partly = 4,
    /// A component does not answer.
    Unreachable = 5,
    /// Somebody stopped it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not come to its end.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// A failure with its own sentence.
    pub(super) fn new(exit: Exit, sentence: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { exit, error: anyhow::Error::msg(sentence), hint: None }
    }

    /// A failure behind which an error stands.
    pub(super) fn because(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// Somebody stopped the command; `hint` says how to go on.
    pub(super) fn interrupted(hint: impl Into<String>) -> Self {
        Self::new(Exit::Interrupted, "interrupted").hint(hint)
    }

    /// Wrong fields, each under the name that `spell` gives it.
    pub(super) fn invalid(invalid: &Invalid, spell: impl Fn(&str) -> String) -> Self {
        let errors = &invalid.errors;
        let mut lines: Vec<_> =
            errors.listed().iter().map(|error| format!("{} {}", spell(&error.field), error.message)).collect();
        if errors.more() > 0 {
            lines.push(format!("and {} more errors", errors.more()));
        }
        Self::new(Exit::Usage, lines.join("\n"))
    }

    /// The same with the command that helps.
    #[must_use]
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with a sentence before it, such as the file that it is about.
    #[must_use]
    pub(super) fn context(self, sentence: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self { error: self.error.context(sentence), ..self }
    }

    /// Tells people; silent where a reader closed the pipe, which is no failure.
    pub(super) fn report(&self) -> Exit {
        // Nobody is left to tell if stderr is closed too.
        let _ = io::Write::write_all(&mut io::stderr(), self.to_string().as_bytes());
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exit == Exit::Done {
            return Ok(());
        }
        let mut told = indented(&self.error.to_string());
        // Whoever pressed Ctrl-C knows that it is no error.
        let head = if self.exit == Exit::Interrupted { "" } else { "error: " };
        writeln!(f, "{head}{told}")?;
        for cause in self.error.chain().skip(1) {
            let cause = indented(&cause.to_string());
            // Many errors repeat their cause in their own sentence.
            if !told.contains(&cause) {
                writeln!(f, "cause: {cause}")?;
                told = cause;
            }
        }
        self.hint.iter().try_for_each(|hint| writeln!(f, "hint: {hint}"))
    }
}

fn indented(text: &str) -> String {
    config::redact(text.trim_end()).replace('\n', "\n       ")
}

/// From writing to stdout: a reader that has seen enough closes the pipe, and that is no error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Failed };
        Self::because(exit, anyhow::Error::new(error).context("the output cannot be written"))
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

/// What helps where the settings and the server do not go together.
pub(super) fn database_hint(error: &db::Error) -> Option<&'static str> {
    match error {
        db::Error::SessionLost(_) => Some(
            "set PM_DATABASE_POOLER=transaction, or `auto` so that pm looks for a pooler itself; PM_DATABASE_DIRECT_URL \
             may name an address without one",
        ),
        error if error.lacks_connections() => Some(
            "raise max_connections of PostgreSQL, or max_client_conn of the pooler; or lower \
             PM_DATABASE_MAX_CONNECTIONS of the processes that use it",
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
        catalog::Error::Unavailable { .. } => Some("`pm config` shows which address is used and where it is set"),
        catalog::Error::BlobGone { .. } => Some("the same command stores it again"),
        catalog::Error::Backlog { .. } => {
            Some("wait until workers have done some of them; PM_MAX_WAITING_JOBS_PER_USER raises the bound")
        }
        catalog::Error::Copying => Some("run the same command again when it has ended"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_failure_tells_its_causes_once_and_masks_passwords() {
        let inner = io::Error::other("postgres://pm:hunter2@db refused");
        let error = catalog::Error::Unavailable { component: "database", source: Arc::new(inner) };
        let failure = Failure::from(error);
        let expected = "error: the database does not answer\ncause: postgres://pm:***@db refused\n\
            hint: `pm config` shows which address is used and where it is set\n";
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
    fn wrong_fields_stand_under_the_names_of_flags() {
        let invalid = Invalid::field("min_price", "must not be negative");
        let failure = Failure::invalid(&invalid, |field| format!("--{}", field.replace('_', "-")));
        assert_eq!(failure.to_string(), "error: --min-price must not be negative\n");
    }
}
