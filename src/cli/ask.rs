//! Confirms actions that delete or change much; refuses without a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use tokio::sync::oneshot;

use super::failure::{Exit, Failure};

/// Asks `question` on the terminal; `yes` skips the question.
///
/// # Errors
/// If the answer is not yes, or there is no terminal.
pub(super) async fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            format!("{question} This needs a confirmation, but there is no terminal"),
        )
        .hint("--yes confirms it"));
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let answer = read_line().await;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "nothing was changed"))
    }
}

/// Reads a line from the terminal.
///
/// A separate thread reads it, because the runtime would wait for its own thread at the end.
async fn read_line() -> String {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // An unreadable answer counts as no.
        let _ = io::stdin().read_line(&mut line);
        let _ = sender.send(line);
    });
    receiver.await.unwrap_or_default()
}
