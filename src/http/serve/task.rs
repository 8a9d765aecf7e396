//! Runs handlers so that permits are held as long as the work lasts.

use tokio::task::AbortHandle;
use tracing::Instrument as _;

use crate::http::{admission::RequestAdmission, problem::Problem};

/// Ends the task on drop, unless it works.
struct Waiting<'a> {
    task: AbortHandle,
    admission: &'a RequestAdmission,
}

/// Runs a handler in its own task, which owns the request's permits.
///
/// When a client disconnects, statements and blocking work still run to their end; other requests get the permits only
/// after that. While the handler reads a body or waits for a permit, it ends with its client.
///
/// # Errors
/// 500 if the runtime shuts down. Passes a panic on.
pub async fn to_the_end<T: Send + 'static>(
    handler: impl Future<Output = T> + Send + 'static,
    admission: &RequestAdmission,
) -> Result<T, Problem> {
    let task = tokio::spawn(handler.in_current_span());
    let _waiting = Waiting { task: task.abort_handle(), admission };
    match task.await {
        Ok(outcome) => Ok(outcome),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Problem::internal(error)),
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.admission.is_working() {
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    /// Starts a handler, drops it, and returns whether its task still ran to its end.
    async fn survives(admission: &Arc<RequestAdmission>) -> bool {
        let (go_on, wait) = oneshot::channel::<()>();
        let (ended, end) = oneshot::channel();
        let handler = async move {
            let _ = wait.await;
            let _ = ended.send(());
        };
        let mut running = Box::pin(to_the_end(handler, admission));
        assert!(running.as_mut().now_or_never().is_none());
        drop(running);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = go_on.send(());
        end.await.is_ok()
    }

    #[tokio::test]
    async fn abandoned_work_runs_to_its_end_and_abandoned_waiting_does_not() {
        let admission = RequestAdmission::for_tests();
        assert!(!survives(&admission).await);
        admission.works().await.expect("a permit");
        assert!(survives(&admission).await);
    }
}
