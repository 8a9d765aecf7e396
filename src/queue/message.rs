//! The broker message: a version, the installation and a job id, but not the job's content.

use serde::Deserialize;

use crate::domain::{InstallationId, JobId};

/// The version that this program writes and accepts; each version has its own queue.
const VERSION: u32 = 2;

/// Why a message names no job of this installation.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// The message is not the expected JSON object.
    #[error("not a job message")]
    Malformed(#[from] serde_json::Error),
    /// A program with another message version wrote it.
    #[error("message version {0}, expected {VERSION}")]
    Version(u32),
    /// Job ids start at 1.
    #[error("invalid job id {0}")]
    Number(i64),
    /// The message belongs to another installation.
    #[error("the message belongs to installation {0}")]
    Foreign(InstallationId),
}

/// The fields that every version has.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct Message {
    installation: InstallationId,
    job_id: JobId,
}

/// Encodes the message for `job` of `installation`.
pub(super) fn encode(installation: &InstallationId, job: JobId) -> Vec<u8> {
    format!(r#"{{"v":{VERSION},"installation":"{installation}","job_id":{job}}}"#).into_bytes()
}

/// Returns the job that a message names; unknown fields are ignored.
///
/// # Errors
/// [`Unreadable`] if the message has another version or installation, or is malformed.
pub(super) fn decode(bytes: &[u8], installation: &InstallationId) -> Result<JobId, Unreadable> {
    let Version { v } = serde_json::from_slice(bytes)?;
    if v != VERSION {
        return Err(Unreadable::Version(v));
    }
    let message: Message = serde_json::from_slice(bytes)?;
    if message.installation != *installation {
        return Err(Unreadable::Foreign(message.installation));
    }
    if message.job_id.0 < 1 {
        return Err(Unreadable::Number(message.job_id.0));
    }
    Ok(message.job_id)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn own() -> InstallationId {
        InstallationId::new(Uuid::from_u128(7))
    }

    #[test]
    fn a_message_names_its_installation_and_job_and_nothing_else() {
        let expected = br#"{"v":2,"installation":"00000000000000000000000000000007","job_id":42}"#;
        assert_eq!(encode(&own(), JobId(42)), expected);
    }

    #[test]
    fn a_job_id_is_unchanged_by_encoding_and_decoding() {
        for number in [1, 7, i64::MAX] {
            assert_eq!(decode(&encode(&own(), JobId(number)), &own()).expect("a readable message"), JobId(number));
        }
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let message = br#"{"v":2,"installation":"00000000000000000000000000000007","job_id":3,"hint":"x"}"#;
        assert_eq!(decode(message, &own()).expect("a readable message"), JobId(3));
    }

    #[test]
    fn another_version_is_not_read() {
        assert!(matches!(decode(br#"{"v":1,"job_id":3}"#, &own()), Err(Unreadable::Version(1))));
    }

    #[test]
    fn a_job_of_another_installation_is_not_read() {
        let other = InstallationId::new(Uuid::from_u128(8));
        let message = encode(&other, JobId(3));
        assert!(matches!(decode(&message, &own()), Err(Unreadable::Foreign(owner)) if owner == other));
    }

    #[test]
    fn a_message_without_a_job_is_not_read() {
        assert!(matches!(decode(&encode(&own(), JobId(0)), &own()), Err(Unreadable::Number(0))));
        let garbage: [&[u8]; 6] = [b"", b"42", b"null", b"{\"v\":2}", b"{\"v\":2,\"job_id\":\"3\"}", b"\xff\xfe\0"];
        for bytes in garbage {
            assert!(matches!(decode(bytes, &own()), Err(Unreadable::Malformed(_))), "{bytes:?}");
        }
    }
}
