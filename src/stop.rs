//! Signals tasks to stop or to reload their files.

use tokio::sync::watch;

/// Receives the stop signal; cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Sends the stop signal; dropping it sends it too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Creates a connected sender and receiver.
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Sends the stop signal.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits for the stop signal; may be called repeatedly.
    pub async fn wanted(&mut self) {
        // An error means that the sender was dropped, which counts as a stop.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Returns whether the stop signal was sent.
    pub fn is_wanted(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

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
