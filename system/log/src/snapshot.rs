//! Snapshots: `<offset>.snapshot` is what the log knew just before `offset` about producers and leader epochs.
//!
//! Written and synced before the segment `offset` may exist (KAFKA-9892 closed it without a sync). A torn or rotten one
//! is told by its CRC, and an older one plus the batches since give the same state.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use env::clock::Instant;

use crate::format::{self, Kind};
use crate::{LeaderEpochs, LogError, Offset, ProducerStates};

/// Version 2 has the producers' last markers.
const KIND: Kind = Kind { tag: *b"PSNP", version: 2 };

pub(crate) fn path(dir: &Path, offset: Offset) -> PathBuf {
    dir.join(format!("{offset:020}.snapshot"))
}

pub(crate) fn encode(offset: Offset, epochs: &LeaderEpochs, producers: &ProducerStates) -> BytesMut {
    let mut payload = BytesMut::new();
    payload.put_i64_le(offset);
    epochs.encode(&mut payload);
    producers.encode(&mut payload);
    payload
}

pub(crate) async fn store(dir: &Path, offset: Offset, payload: &[u8]) -> Result<(), LogError> {
    format::store(KIND, &path(dir, offset), payload, true).await
}

/// `None` if there is none at `offset`, or it is damaged.
pub(crate) async fn load(
    dir: &Path,
    offset: Offset,
    expiry: Duration,
    now: Instant,
) -> Result<Option<(LeaderEpochs, ProducerStates)>, LogError> {
    let Some((version, mut payload)) = format::load_version(KIND, &path(dir, offset)).await? else {
        return Ok(None);
    };
    if payload.try_get_i64_le() != Ok(offset) {
        return Ok(None);
    }
    let Some(epochs) = LeaderEpochs::decode(&mut payload) else { return Ok(None) };
    Ok(ProducerStates::decode(payload, version >= 2, expiry, now).map(|producers| (epochs, producers)))
}
