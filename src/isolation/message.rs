//! Messages between a worker and a decoder.
//!
//! A message is a length, that many bytes of JSON, and then the files that the JSON announces. Both sides limit how
//! much they read. Each task has a random nonce that its answer repeats, so an answer cannot be attributed to another
//! task.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use uuid::Uuid;

use super::layers::SandboxLayers;
use crate::imaging::{Error, Limits, Preset, Processed, SourceFormat};

/// Maximum bytes of a message's JSON: enough for a hundred presets or their renditions.
const MAX_JSON_BYTES: u32 = 4 << 20;

/// Kind of work that a decoder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    /// Compute how much memory the image needs.
    Measure,
    /// Detect the source format from the headers.
    Probe,
    /// Make the renditions.
    Process,
    /// Test the sandbox layers.
    TrySandbox,
}

/// Random value of a task that its answer must repeat. A decoder cannot answer a task before it has read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nonce(String);

impl Nonce {
    /// Returns 244 random bits.
    pub(super) fn random() -> Self {
        let half = || Uuid::new_v4().simple();
        Self(format!("{}{}", half(), half()))
    }
}

/// Describes a task; the source bytes follow it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// Value that the answer must repeat.
    pub nonce: Nonce,
    /// Kind of work.
    pub work: Work,
    /// Presets to render.
    pub presets: Vec<Preset>,
    /// Limits on accepted images.
    pub limits: Limits,
    /// Memory limit, in bytes.
    pub memory: u64,
    /// CPU time limit.
    pub time: Duration,
    /// Whether decoding requires every sandbox layer.
    pub needs_layers: bool,
    /// Length of the source, in bytes.
    pub source_bytes: u64,
}

/// Outcome of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Memory that the image needs, in bytes.
    Measured(Result<u64, Error>),
    /// The kind of image.
    Probed(Result<SourceFormat, Error>),
    /// The renditions, and the length of each file that follows.
    Processed(Result<(Processed, Vec<u64>), Error>),
    /// Active sandbox layers. Also sent instead of another answer if a required layer is missing.
    SandboxLayers(SandboxLayers),
}

/// An answer with the nonce of its task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// Nonce of the task.
    pub nonce: Nonce,
    /// Outcome of the task.
    pub answer: Answer,
}

/// Writes the answer to the task with this nonce, then the files.
pub(super) fn reply(to: &mut impl Write, nonce: &Nonce, answer: Answer, files: &[Vec<u8>]) -> io::Result<()> {
    to.write_all(&frame(&Reply { nonce: nonce.clone(), answer })?)?;
    files.iter().try_for_each(|file| to.write_all(file))
}

/// Reads a message.
pub(super) fn read<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut text = vec![0; length_of(length)?];
    from.read_exact(&mut text)?;
    parse(&text)
}

/// Writes a message asynchronously; the caller writes the files that it announces.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    to.write_all(&frame(message)?).await
}

/// Reads a message asynchronously.
pub(super) async fn receive<M: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut text = vec![0; length_of(length)?];
    from.read_exact(&mut text).await?;
    parse(&text)
}

/// Parses JSON. Truncated JSON is invalid data, not an end of file.
fn parse<M: DeserializeOwned>(text: &[u8]) -> io::Result<M> {
    serde_json::from_slice(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MAX_JSON_BYTES).ok_or_else(too_long)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

fn length_of(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes);
    if length > MAX_JSON_BYTES { Err(too_long()) } else { Ok(length as usize) }
}

pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message between worker and decoder exceeds its size limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_round_trips_and_an_oversized_one_is_rejected() {
        let answer = Answer::Measured(Err(Error::Undecodable { reason: "it ends early".into() }));
        let (nonce, mut bytes) = (Nonce::random(), Vec::new());
        reply(&mut bytes, &nonce, answer, &[]).expect("written");
        let read_back: Reply = read(&mut bytes.as_slice()).expect("read");
        assert_eq!(read_back.nonce, nonce);
        let Answer::Measured(read_back) = read_back.answer else { panic!("another answer") };
        assert_eq!(read_back, Err(Error::Undecodable { reason: "it ends early".into() }));

        bytes[..4].copy_from_slice(&(MAX_JSON_BYTES + 1).to_le_bytes());
        assert!(read::<Reply>(&mut bytes.as_slice()).is_err());
        for wrong in [&b"\x05\0\0\0nope!"[..], b"\x02\0\0\0{\"", b"\0\0\0\0"] {
            let mut wrong = wrong;
            let error = read::<Reply>(&mut wrong).expect_err("no answer");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn every_task_has_a_unique_nonce() {
        assert_ne!(Nonce::random(), Nonce::random());
        assert_eq!(Nonce::random().0.len(), 64);
    }
}
