//! Snapshots of the metadata on disk (KIP-630): `<end offset>-<epoch>.checkpoint`, beside the log's segments.
//!
//! A snapshot is written under another name, synced and renamed, so one that has its name is whole. It holds batches of
//! records that lead to the state below its end offset. The newest is what the log begins with; once it stands, whole
//! segments below it may go, and so may older snapshots.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use env::disk;
use env::sync::mpsc;
use log::{Log, LogError};

use super::driver::{Incoming, Membership};
use super::message::Position;
use super::rpc::{self, SnapshotPart};
use crate::peer::Peer;

const SUFFIX: &str = ".checkpoint";
/// Bytes asked for at a time.
const PART_BYTES: i32 = 1 << 20;
/// A snapshot larger than this is refused.
const MAX_BYTES: i64 = 1 << 30;

/// The file of the snapshot `at`.
pub fn path(dir: &Path, at: Position) -> PathBuf {
    dir.join(format!("{:020}-{:010}{SUFFIX}", at.offset, at.epoch))
}

/// The snapshots in `dir`, oldest first.
async fn list(dir: &Path) -> io::Result<Vec<Position>> {
    let position = |name: &str| {
        let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        Some(Position { offset: offset.parse().ok()?, epoch: epoch.parse().ok()? })
    };
    let mut found: Vec<Position> = disk::read_dir(dir).await?.iter().filter_map(|e| position(&e.name)).collect();
    found.sort_by_key(|at| at.offset);
    Ok(found)
}

/// The newest snapshot in `dir`.
pub async fn newest(dir: &Path) -> io::Result<Option<Position>> {
    Ok(list(dir).await?.pop())
}

/// Stores a snapshot. Durable on return.
pub async fn store(dir: &Path, at: Position, contents: Bytes) -> io::Result<()> {
    disk::replace(path(dir, at), contents).await
}

/// Removes the snapshots before `at`.
pub async fn remove_older(dir: &Path, at: Position) -> io::Result<()> {
    for old in list(dir).await?.into_iter().filter(|old| old.offset < at.offset) {
        disk::remove_file(path(dir, old)).await?;
    }
    Ok(())
}

/// Brings a log that was opened in line with its newest snapshot: one that ends before it, or that holds something else
/// where the snapshot ends, was about to be replaced by it.
pub(crate) async fn align(log: &mut Log, at: Position) -> Result<(), LogError> {
    let (start, end) = (log.start_offset(), log.end_offset());
    let held = if at.offset == start { None } else { log.reader().epoch_for_offset(at.offset - 1) };
    let fits = start <= at.offset && at.offset <= end && held.is_none_or(|epoch| epoch == at.epoch);
    if fits { Ok(()) } else { log.reset_to(at.offset, env::clock::now()).await }
}

/// Removes the segments that lie below the snapshot `at` whole; where the log begins now.
pub(crate) async fn delete_prefix(log: &mut Log, at: Position) -> Result<i64, LogError> {
    log.delete_before(at.offset).await?;
    Ok(log.start_offset())
}

/// The size of the snapshot and the part asked for; `None` if there is none of that name.
pub async fn read_part(dir: &Path, part: &SnapshotPart) -> io::Result<Option<(i64, Bytes)>> {
    let file = match disk::File::open(path(dir, part.at), disk::Open::Existing).await {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let size = file.len().await?;
    let (from, len) = (part.position as u64, part.max_bytes.min(PART_BYTES) as usize);
    let bytes = if from < size { file.read_at(from, len).await? } else { Bytes::new() };
    Ok(Some((size as i64, bytes)))
}

/// Why a snapshot could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the leader did not send it")]
    Peer,
    #[error("it has {0} bytes")]
    Size(i64),
    #[error("failed to store it: {0}")]
    Storage(io::Error),
}

/// Gets the leader's snapshot and stores it. Durable on return.
pub(crate) async fn fetch(
    peer: &Peer,
    membership: &Membership,
    epoch: i32,
    at: Position,
    dir: &Path,
    progress: mpsc::Sender<Incoming>,
) -> Result<(), FetchError> {
    let mut whole = BytesMut::new();
    loop {
        let position = whole.len() as i64;
        let (version, body) =
            rpc::fetch_snapshot(&membership.cluster_id, membership.me, epoch, at, position, PART_BYTES);
        let response = peer.call(version, &body, membership.fetch_timeout).await.map_err(|_| FetchError::Peer)?;
        let (size, bytes) = rpc::decode_snapshot_part(response, at, position).ok_or(FetchError::Peer)?;
        if size > MAX_BYTES || position + bytes.len() as i64 > size {
            return Err(FetchError::Size(size));
        }
        whole.extend_from_slice(&bytes);
        if whole.len() as i64 == size {
            break;
        }
        if bytes.is_empty() {
            return Err(FetchError::Peer);
        }
        let _ = progress.send(Incoming::SnapshotProgress).await;
    }
    store(dir, at, whole.freeze()).await.map_err(FetchError::Storage)
}
