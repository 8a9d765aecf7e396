//! The message that travels through the broker: a version and the number of a job, never what the job is about.

use serde::Deserialize;

use crate::domain::JobId;

/// The version this program writes and the only one it reads; a new one gets a queue of its own name.
const VERSION: u32 = 1;

/// Why the bytes of a message are not a job's number.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Not the JSON object that is expected.
    #[error("not a job message")]
    Malformed(#[from] serde_json::Error),
    /// Written by a program that speaks another version.
    #[error("version {0} instead of {VERSION}")]
    Version(u32),
    /// Jobs are numbered from 1.
    #[error("no job has the number {0}")]
    Number(i64),
}

#[derive(Deserialize)]
struct Message {
    v: u32,
    job_id: JobId,
}

/// The message that names `job`.
pub(super) fn encode(job: JobId) -> Vec<u8> {
    format!(r#"{{"v":{VERSION},"job_id":{job}}}"#).into_bytes()
}

/// The job that a message names; fields that are not known are passed over.
///
/// # Errors
/// [`Unreadable`] if the message cannot have been written by a program like this one.
pub(super) fn decode(bytes: &[u8]) -> Result<JobId, Unreadable> {
    let message: Message = serde_json::from_slice(bytes)?;
    match message {
        Message { v, .. } if v != VERSION => Err(Unreadable::Version(v)),
        Message { job_id, .. } if job_id.0 < 1 => Err(Unreadable::Number(job_id.0)),
        Message { job_id, .. } => Ok(job_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_job_and_nothing_else() {
        assert_eq!(encode(JobId(42)), br#"{"v":1,"job_id":42}"#);
    }

    #[test]
    fn every_job_comes_back_from_its_message() {
        for number in [1, 7, i64::MAX] {
            assert_eq!(decode(&encode(JobId(number))).expect("a readable message"), JobId(number));
        }
    }

    #[test]
    fn fields_of_a_later_writer_are_passed_over() {
        assert_eq!(decode(br#"{"v":1,"job_id":3,"hint":"x"}"#).expect("a readable message"), JobId(3));
    }

    #[test]
    fn another_version_is_not_read() {
        assert!(matches!(decode(br#"{"v":2,"job_id":3}"#), Err(Unreadable::Version(2))));
    }

    #[test]
    fn what_names_no_job_is_not_read() {
        assert!(matches!(decode(br#"{"v":1,"job_id":0}"#), Err(Unreadable::Number(0))));
        let garbage: [&[u8]; 6] = [b"", b"42", b"null", b"{\"v\":1}", b"{\"v\":1,\"job_id\":\"3\"}", b"\xff\xfe\0"];
        for bytes in garbage {
            assert!(matches!(decode(bytes), Err(Unreadable::Malformed(_))), "{bytes:?}");
        }
    }
}
