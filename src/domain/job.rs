//! A job: a unit of work in the queue of record.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    domain::{ImageId, JobId, UserId},
};

/// Task of a job. It is tagged and versioned, since an old worker may read a newer program's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobPayload {
    /// Read or download an image, make its renditions, and store them.
    ProcessImage {
        /// Version of this format.
        v: u8,
        /// Make only these presets and keep the other renditions; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        presets: Option<Vec<String>>,
    },
    /// A task that only a newer version knows.
    #[serde(other)]
    Unknown,
}

impl JobPayload {
    /// Creates the task for an image, or only for some of its presets.
    pub const fn process_image(presets: Option<Vec<String>>) -> Self {
        Self::ProcessImage { v: 1, presets }
    }
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// It waits for its time and a worker.
    Queued,
    /// A worker holds its lease.
    Running,
    /// Its results are stored, or its image has a newer generation.
    Done,
    /// It failed for good.
    Dead,
}

impl JobState {
    /// Returns the state's name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

/// A claimed job. Only the holder of its lease may finish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The id.
    pub id: JobId,
    /// The job's image.
    pub image_id: ImageId,
    /// The task.
    pub payload: JobPayload,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    /// Earlier attempts that lost their lease; they are not the image's fault.
    pub lost: i32,
    /// The lease token: every later write checks it and fails if the lease was lost.
    pub lease_token: String,
    /// The id of the request that created the job, for the log.
    pub request_id: Option<String>,
    /// The time at which the job was queued.
    pub created_at: Timestamp,
    /// The owner of the image; absent if an older version queued the job.
    pub user_id: Option<UserId>,
    /// The host of the image's URL; `None` for an upload.
    pub host: Option<String>,
}

/// Users and hosts that a worker skips because their limit is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtCapacity {
    /// Users to skip.
    pub users: Vec<String>,
    /// Hosts to skip.
    pub hosts: Vec<String>,
}
