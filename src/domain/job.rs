//! A unit of work as the queue of record holds it.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    domain::{ImageId, JobId, UserId},
};

/// What a job asks for; tagged and versioned, since an old worker may meet a new one's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobPayload {
    /// Download or read a picture, make its renditions, store them.
    ProcessImage {
        /// Version of this shape.
        v: u8,
        /// Make only these presets and keep the others; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        presets: Option<Vec<String>>,
    },
    /// Something that only a newer version knows.
    #[serde(other)]
    Unknown,
}

impl JobPayload {
    /// Work on a whole picture, or only on some presets.
    pub const fn process_image(presets: Option<Vec<String>>) -> Self {
        Self::ProcessImage { v: 1, presets }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits until its time has come and a worker takes it.
    Queued,
    /// A worker holds its lease.
    Running,
    /// Its work is stored, or another run of its picture has begun.
    Done,
    /// It failed for good.
    Dead,
}

impl JobState {
    /// The word the database holds.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

/// A claimed job: whoever holds this may finish it as long as the lease is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// The picture it is about.
    pub image_id: ImageId,
    /// What is asked for.
    pub payload: JobPayload,
    /// This attempt's number, from 1.
    pub attempt: i32,
    /// Attempts before this one whose lease was lost: they say nothing about the image.
    pub lost: i32,
    /// Proof of the claim: every later write carries it and is refused once it is another's.
    pub lease_token: String,
    /// The request that caused the job, for the log.
    pub request_id: Option<String>,
    /// When the job was queued.
    pub created_at: Timestamp,
    /// The image's user; unknown if an older program queued the job.
    pub user_id: Option<UserId>,
    /// The host from which the image is downloaded; none for an uploaded one.
    pub host: Option<String>,
}

/// Whose jobs a worker leaves to others or to later: it has as many of theirs as it may have at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// Users.
    pub users: Vec<String>,
    /// Hosts.
    pub hosts: Vec<String>,
}
