//! Telling tasks to come to an end, and hearing of it.

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
