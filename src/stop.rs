//! Tells tasks to come to an end, or to read their files again.

use tokio::sync::watch;

/// Hears when it is time to stop; cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Says when it is time to stop; dropping it says so as well.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A pair of one who says and one who hears.
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// It is time.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns once it is time, at once if it was already; may be awaited again and again.
    pub async fn wanted(&mut self) {
        // An error means that the stopper is gone: then it is time as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether it is time.
    pub fn is_wanted(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Tells tasks to read their files again; clones share it.
#[derive(Clone, Debug)]
pub struct Reload(watch::Sender<()>);

/// Hears when files are to be read again.
#[derive(Debug)]
pub struct Reloads(watch::Receiver<()>);

impl Default for Reload {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Reload {
    /// Wakes every task that reads files.
    pub fn request(&self) {
        self.0.send_replace(());
    }

    /// Hears of every request from now on.
    pub fn requests(&self) -> Reloads {
        Reloads(self.0.subscribe())
    }
}

impl Reloads {
    /// Returns after the next request, at once if there was one since the last call. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left to ask.
            std::future::pending::<()>().await;
        }
    }
}
