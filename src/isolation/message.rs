//! What a worker and a decoder say to each other: a length, that many bytes of JSON, and behind them the files that the
//! JSON announces. Either side reads no more than the other may have to say. Each task has a random number that its answer
//! repeats, so that no answer is taken for one to another task.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use uuid::Uuid;

use super::walls::Walls;
use crate::imaging::{Error, Limits, Preset, Processed, SourceFormat};

/// The JSON of one message has at most this many bytes: a hundred presets, or the renditions of a hundred presets.
const LONGEST: u32 = 4 << 20;

/// What a decoder is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    /// Say how much memory the picture needs.
    Measure,
    /// Say what kind of image it is, by its headers.
    Probe,
    /// Make its renditions.
    Process,
    /// Try the walls.
    TryWalls,
}

/// Random bits of one task, which its answer repeats: nobody can answer a task before it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nonce(String);

impl Nonce {
    /// Returns 244 random bits.
    pub(super) fn random() -> Self {
        let half = || Uuid::new_v4().simple();
        Self(format!("{}{}", half(), half()))
    }
}

/// A piece of work; the source follows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// What the answer has to repeat.
    pub nonce: Nonce,
    /// What is to be done.
    pub work: Work,
    /// What is to be made of the picture.
    pub presets: Vec<Preset>,
    /// What is refused.
    pub limits: Limits,
    /// Memory that the work may take, in bytes.
    pub memory: u64,
    /// Processor time that the work may take.
    pub time: Duration,
    /// Whether the source may be looked at only if every wall stands.
    pub needs_walls: bool,
    /// Bytes of the source.
    pub source_bytes: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Memory that the picture needs, in bytes.
    Measured(Result<u64, Error>),
    /// The kind of image.
    Probed(Result<SourceFormat, Error>),
    /// The renditions, and how many bytes each has of what follows.
    Processed(Result<(Processed, Vec<u64>), Error>),
    /// The walls that stand; also in place of an answer that was asked for between complete walls alone.
    Walls(Walls),
}

/// An answer, and the task that it is of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// The task's.
    pub nonce: Nonce,
    /// What came of it.
    pub answer: Answer,
}

/// Writes the answer to the task of this nonce, and the files that it announces.
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

/// Writes a message without blocking the thread; what it announces is written by the caller.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    to.write_all(&frame(message)?).await
}

/// As [`read`], without blocking the thread.
pub(super) async fn receive<M: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut text = vec![0; length_of(length)?];
    from.read_exact(&mut text).await?;
    parse(&text)
}

/// JSON that breaks off is wrong as well, and no end of the line.
fn parse<M: DeserializeOwned>(text: &[u8]) -> io::Result<M> {
    serde_json::from_slice(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= LONGEST).ok_or_else(too_long)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

fn length_of(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes);
    if length > LONGEST { Err(too_long()) } else { Ok(length as usize) }
}

pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message is longer than any can be")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_and_one_that_is_too_long_is_not_read() {
        let answer = Answer::Measured(Err(Error::Undecodable { reason: "it ends early".into() }));
        let (nonce, mut bytes) = (Nonce::random(), Vec::new());
        reply(&mut bytes, &nonce, answer, &[]).expect("written");
        let read_back: Reply = read(&mut bytes.as_slice()).expect("read");
        assert_eq!(read_back.nonce, nonce);
        let Answer::Measured(read_back) = read_back.answer else { panic!("another answer") };
        assert_eq!(read_back, Err(Error::Undecodable { reason: "it ends early".into() }));

        bytes[..4].copy_from_slice(&(LONGEST + 1).to_le_bytes());
        assert!(read::<Reply>(&mut bytes.as_slice()).is_err());
        for wrong in [&b"\x05\0\0\0nope!"[..], b"\x02\0\0\0{\"", b"\0\0\0\0"] {
            let mut wrong = wrong;
            let error = read::<Reply>(&mut wrong).expect_err("no answer");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn no_two_tasks_have_the_same_nonce() {
        assert_ne!(Nonce::random(), Nonce::random());
        assert_eq!(Nonce::random().0.len(), 64);
    }
}
