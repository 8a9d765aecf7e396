//! Use-cases of jobs: claiming and settling them, leases, dead letters, reprocessing, and how the queue is.

pub(super) mod dead_letters;
pub(super) mod leases;
pub(super) mod process;
pub(super) mod queue_status;
pub(super) mod reprocess;
pub(super) mod waiting;
