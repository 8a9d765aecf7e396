//! Asking before much is done or lost. Without a terminal there is nobody to ask, so it refuses.

use std::io::{self, IsTerminal as _, Write as _};

use tokio::sync::oneshot;

use super::failure::{Exit, Failure};

/// Goes on if somebody at a terminal says yes to `question`; `yes` is their answer on the command line.
///
/// # Errors
/// If they do not, or if nobody can be asked.
pub(super) async fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("{question} Nobody can be asked without a terminal"))
            .hint("--yes says that it is meant"));
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let answer = read_line().await;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "nothing was changed"))
    }
}

/// A line from the terminal. A thread of its own reads it, since the runtime would wait for one of its own at the end.
async fn read_line() -> String {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // What cannot be read is no yes.
        let _ = io::stdin().read_line(&mut line);
        let _ = sender.send(line);
    });
    receiver.await.unwrap_or_default()
}
