//! Use cases of jobs: claiming, settling, leases, dead letters, reprocessing, and queue status.

pub(super) mod dead_letters;
pub(super) mod leases;
pub(super) mod process;
pub(super) mod queue_status;
pub(super) mod reprocess;
pub(super) mod waiting;
