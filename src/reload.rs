//! Signals tasks to reload their files.

use tokio::sync::watch;

/// Signals tasks to reload their files; clones share it.
#[derive(Clone, Debug)]
pub struct Reload(watch::Sender<()>);

/// Receives reload signals.
#[derive(Debug)]
pub struct Reloads(watch::Receiver<()>);

impl Default for Reload {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Reload {
    /// Sends a reload signal to every subscriber.
    pub fn request(&self) {
        self.0.send_replace(());
    }

    /// Subscribes to later reload signals.
    pub fn requests(&self) -> Reloads {
        Reloads(self.0.subscribe())
    }
}

impl Reloads {
    /// Waits for a reload signal after the last call. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // All senders were dropped: no signal will come.
            std::future::pending::<()>().await;
        }
    }
}
