//! What coordinator and workers say to each other, and the frames it travels in.
//!
//! ```text
//!   frame   u32 length of the rest · u8 version · u32 length of the message · message (JSON) · payload (bytes)
//! ```
//! Every message about an attempt carries its generation; a message of another one is ignored on both sides.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use env::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader, Writer};
use crate::job::JobConfig;

pub const VERSION: u8 = 1;

/// A longer frame is refused: it bounds what a peer can make this node allocate.
pub const MAX_FRAME_BYTES: usize = 256 << 20;

pub type Generation = u64;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToCoordinator {
    Register {
        worker: String,
        shuffle: SocketAddr,
    },
    Heartbeat,
    /// The worker can take the channels of its window tasks.
    Deployed {
        generation: Generation,
    },
    /// The task settled what earlier attempts left, and runs.
    Opened {
        generation: Generation,
        task: String,
    },
    /// Payload: the encoded [`crate::checkpoint::TaskSnapshot`].
    Ack {
        generation: Generation,
        task: String,
        n: u64,
    },
    Committed {
        generation: Generation,
        task: String,
        n: u64,
    },
    /// The source task read every split to its bound.
    Ended {
        generation: Generation,
        task: String,
    },
    Failed {
        generation: Generation,
        task: String,
        reason: String,
    },
    /// Nothing of the attempt runs on this worker any more.
    Cancelled {
        generation: Generation,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToWorker {
    Welcome,
    Heartbeat,
    /// Payload: [`Snapshots`] of the tasks that are restored.
    Deploy(Box<Deploy>),
    /// All workers deployed: connect and run. Where the worker of each window task takes channels.
    Start {
        generation: Generation,
        windows: BTreeMap<String, SocketAddr>,
    },
    Trigger {
        generation: Generation,
        n: u64,
    },
    Commit {
        generation: Generation,
        n: u64,
    },
    /// End offsets, exclusive, by partition; durable at the coordinator.
    Bounds {
        generation: Generation,
        ends: Vec<(i32, i64)>,
    },
    Cancel {
        generation: Generation,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    pub generation: Generation,
    pub job: JobConfig,
    /// What the attempt is restored from.
    pub checkpoint: Option<u64>,
    /// Everything had ended at that checkpoint: only commit.
    pub is_final: bool,
    pub source_tasks: u32,
    /// The tasks of this worker.
    pub tasks: Vec<TaskDeploy>,
    pub bounds: Option<Vec<(i32, i64)>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TaskDeploy {
    /// `new_splits`: partitions that are in no checkpoint, with their first offset.
    Source {
        index: u32,
        new_splits: Vec<(i32, i64)>,
    },
    Window {
        index: u32,
    },
}

impl TaskDeploy {
    pub fn name(&self) -> String {
        match self {
            Self::Source { index, .. } => source_task(*index),
            Self::Window { index } => window_task(*index),
        }
    }
}

pub fn source_task(index: u32) -> String {
    format!("source-{index}")
}

pub fn window_task(index: u32) -> String {
    format!("window-{index}")
}

/// Encoded task snapshots by task: the payload of Deploy.
pub fn encode_snapshots(snapshots: &BTreeMap<String, Bytes>) -> Bytes {
    let mut w = Writer::new();
    w.count(snapshots.len());
    for (task, bytes) in snapshots {
        w.bytes(task.as_bytes());
        w.bytes(bytes);
    }
    w.finish()
}

pub fn decode_snapshots(payload: Bytes) -> Result<BTreeMap<String, Bytes>, CodecError> {
    let mut r = Reader::new("deploy payload", payload);
    let mut snapshots = BTreeMap::new();
    for _ in 0..r.count(8)? {
        let task = r.string()?;
        snapshots.insert(task, r.bytes()?);
    }
    r.end()?;
    Ok(snapshots)
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("connection failed: {0}")]
    Io(#[from] env::io::Error),
    #[error("connection closed")]
    Closed,
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("frame of {0} bytes is over the limit")]
    Oversized(usize),
}

/// One whole frame, length included.
pub fn frame<M: Serialize>(message: &M, payload: &[u8]) -> Bytes {
    let json = serde_json::to_vec(message).unwrap_or_else(|e| panic!("message does not serialise: {e}"));
    let mut out = BytesMut::with_capacity(9 + json.len() + payload.len());
    let length = |n: usize| u32::try_from(n).unwrap_or_else(|_| panic!("frame of {n} bytes"));
    out.put_u32(length(5 + json.len() + payload.len()));
    out.put_u8(VERSION);
    out.put_u32(length(json.len()));
    out.put_slice(&json);
    out.put_slice(payload);
    out.freeze()
}

/// The content of the next frame, without its length. Not cancel safe: drop the connection with it.
pub async fn read_frame<R: AsyncRead + Unpin>(from: &mut R) -> Result<Bytes, FrameError> {
    let mut length = [0; 4];
    let first = from.read(&mut length).await?;
    if first == 0 {
        return Err(FrameError::Closed);
    }
    from.read_exact(&mut length[first..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::Oversized(length));
    }
    // Grown by what arrives, not by what was announced.
    let mut content = BytesMut::with_capacity(length.min(1 << 16));
    let mut limited = from.take(length as u64);
    while content.len() < length {
        if limited.read_buf(&mut content).await? == 0 {
            return Err(FrameError::Closed);
        }
    }
    Ok(content.freeze())
}

pub async fn read_message<M: DeserializeOwned, R: AsyncRead + Unpin>(from: &mut R) -> Result<(M, Bytes), FrameError> {
    let mut r = Reader::new("control message", read_frame(from).await?);
    let version = r.u8()?;
    if version != VERSION {
        return Err(
            CodecError::Version { what: "control message", found: version.into(), known: VERSION.into() }.into()
        );
    }
    let json = r.bytes()?;
    let message = serde_json::from_slice(&json).map_err(|e| r.malformed(e))?;
    Ok((message, r.rest()))
}

pub async fn write_message<M: Serialize, W: AsyncWrite + Unpin>(
    to: &mut W,
    message: &M,
    payload: &[u8],
) -> Result<(), FrameError> {
    to.write_all(&frame(message, payload)).await?;
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_bad_ones_are_errors() {
        env::node::run_real(async {
            let message = ToCoordinator::Ack { generation: 3, task: "window-0".into(), n: 4 };
            let bytes = frame(&message, b"state");
            let mut from = &bytes[..];
            let (back, payload): (ToCoordinator, _) = read_message(&mut from).await.unwrap();
            assert_eq!((back, &payload[..]), (message, &b"state"[..]));
            assert!(matches!(read_message::<ToCoordinator, _>(&mut from).await, Err(FrameError::Closed)));
            for n in 0..bytes.len() {
                assert!(read_message::<ToCoordinator, _>(&mut &bytes[..n]).await.is_err(), "cut at {n}");
            }
            let mut other = bytes.to_vec();
            other[4] = 9;
            assert!(read_message::<ToCoordinator, _>(&mut &other[..]).await.is_err());
            let huge = u32::MAX.to_be_bytes();
            assert!(matches!(read_frame(&mut &huge[..]).await, Err(FrameError::Oversized(_))));
        })
        .unwrap();
    }

    #[test]
    fn snapshots_round_trip() {
        let all = BTreeMap::from([("window-0".to_owned(), Bytes::from_static(b"abc"))]);
        assert_eq!(decode_snapshots(encode_snapshots(&all)).unwrap(), all);
    }
}
