//! What a worker and a decoder say to each other: a length, that many bytes of JSON, and behind them the files that the
//! JSON announces. Either side reads no more than the other may have to say.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::walls::Walls;
use crate::imaging::{Error, Limits, Preset, Processed};

/// The JSON of one message has at most this many bytes: a hundred presets, or the renditions of a hundred presets.
const LONGEST: u32 = 4 << 20;

/// What a decoder is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    /// Say how much memory the picture needs.
    Measure,
    /// Make its renditions.
    Process,
    /// Try the walls.
    TryWalls,
}

/// A piece of work; the source follows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
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
    /// Bytes of the source.
    pub source_bytes: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Memory that the picture needs, in bytes.
    Measured(Result<u64, Error>),
    /// The renditions, and how many bytes each has of what follows.
    Processed(Result<(Processed, Vec<u64>), Error>),
    /// The walls that stand.
    Walls(Walls),
}

/// Writes a message; what it announces is written by the caller.
pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&frame(message)?)
}

/// Reads a message.
pub(super) fn read<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut text = vec![0; length_of(length)?];
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// As [`write`], without blocking the thread.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    to.write_all(&frame(message)?).await
}

/// As [`read`], without blocking the thread.
pub(super) async fn receive<M: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut text = vec![0; length_of(length)?];
    from.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
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
        let mut bytes = Vec::new();
        write(&mut bytes, &answer).expect("written");
        let Answer::Measured(read_back) = read(&mut bytes.as_slice()).expect("read") else { panic!("another answer") };
        assert_eq!(read_back, Err(Error::Undecodable { reason: "it ends early".into() }));

        bytes[..4].copy_from_slice(&(LONGEST + 1).to_le_bytes());
        assert!(read::<Answer>(&mut bytes.as_slice()).is_err());
        assert!(read::<Answer>(&mut &b"\x05\0\0\0nope!"[..]).is_err());
    }
}
