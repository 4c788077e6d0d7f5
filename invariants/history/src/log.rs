//! A partition's log as decoded after the run, by one of several readers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// Header of a record that is a copy: partition and offset of what it is a copy of, as `3:1042`.
pub const COPY_OF: &str = "copy.of";

/// Bytes, shared by clones. In JSON text where they are UTF-8, else `{"hex": "…"}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob(pub Bytes);

impl Blob {
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Blob {
        Blob(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Blob {
        Blob(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Blob {
    fn from(text: String) -> Blob {
        Blob(text.into())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(bytes.into())
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Blob {
        Blob(bytes)
    }
}

impl PartialEq<str> for Blob {
    fn eq(&self, text: &str) -> bool {
        self.0 == text.as_bytes()
    }
}

impl PartialEq<&str> for Blob {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => write!(f, "{text:?}"),
            None => write!(f, "0x{}", hex(&self.0)),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrHex {
    Text(String),
    Hex(Hex),
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => Hex { hex: hex(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        match TextOrHex::deserialize(deserializer)? {
            TextOrHex::Text(text) => Ok(text.into()),
            TextOrHex::Hex(Hex { hex }) => {
                unhex(&hex).map(Blob::from).ok_or_else(|| de::Error::custom("expected an even number of hex digits"))
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

/// Who read the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// Fetched raw from offset 0: every record, control records too, with the fields of its batch.
    ReadUncommitted,
    /// What our own consumer returned at `read_committed`: no control records, nothing aborted.
    ReadCommitted,
    /// Decoded from a stopped node's disk by the second decoder, with the fields of its batch.
    Disk { node: u32 },
}

/// One partition as one source shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionLog {
    pub source: LogSource,
    pub topic: String,
    pub partition: i32,
    pub log_start_offset: i64,
    /// One past the last record read, or on disk.
    pub log_end_offset: i64,
    /// As the last fetch reported; `None` for a disk.
    pub high_watermark: Option<i64>,
    /// As the last fetch reported; `None` for a disk.
    pub last_stable_offset: Option<i64>,
    /// In order of offset.
    pub records: Records,
}

/// The records of a log. Clones share them, for a log is read once and then judged, counted and kept by several; the
/// first change of a clone gives it records of its own.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Records(Arc<Vec<LogRecord>>);

impl From<Vec<LogRecord>> for Records {
    fn from(records: Vec<LogRecord>) -> Records {
        Records(Arc::new(records))
    }
}

impl std::ops::Deref for Records {
    type Target = Vec<LogRecord>;

    fn deref(&self) -> &Vec<LogRecord> {
        &self.0
    }
}

impl std::ops::DerefMut for Records {
    fn deref_mut(&mut self) -> &mut Vec<LogRecord> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = &'a LogRecord;
    type IntoIter = std::slice::Iter<'a, LogRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a mut Records {
    type Item = &'a mut LogRecord;
    type IntoIter = std::slice::IterMut<'a, LogRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl FromIterator<LogRecord> for Records {
    fn from_iter<I: IntoIterator<Item = LogRecord>>(records: I) -> Records {
        records.into_iter().collect::<Vec<_>>().into()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Records, D::Error> {
        Vec::deserialize(deserializer).map(Records::from)
    }
}

/// A decoded record with what its batch says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRecord {
    pub offset: i64,
    pub leader_epoch: i32,
    /// -1: no idempotent producer.
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// The record's own: the batch's base sequence plus its index, wrapping as Kafka does; -1 without producer.
    pub sequence: i32,
    pub transactional: bool,
    /// Set for a control record.
    pub control: Option<Control>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    pub key: Option<Blob>,
    pub value: Option<Blob>,
    #[serde(default)]
    pub headers: Vec<Header>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    Commit,
    Abort,
    /// Of the metadata log: a leader's first record, a snapshot's frame, the voters (KIP-595, KIP-630, KIP-853).
    Quorum,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// UTF-8 in every log that Kafka's clients wrote.
    pub key: Blob,
    pub value: Option<Blob>,
}

impl LogRecord {
    /// The first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.key == *name)?.value.as_ref()?.as_str()
    }

    /// (client, n) of the operation that wrote it.
    pub fn op(&self) -> Option<(u32, u64)> {
        Some((self.header("op.client")?.parse().ok()?, self.header("op.n")?.parse().ok()?))
    }

    /// The workload's transaction it was written in.
    pub fn op_txn(&self) -> Option<u64> {
        self.header("op.txn")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_text_or_hex() {
        for (bytes, json) in [(&b"a\"b"[..], r#""a\"b""#), (&[0xff, 0x00][..], r#"{"hex":"ff00"}"#)] {
            let blob = Blob::from(bytes);
            assert_eq!(serde_json::to_string(&blob).unwrap(), json);
            assert_eq!(serde_json::from_str::<Blob>(json).unwrap(), blob);
        }
        assert!(serde_json::from_str::<Blob>(r#"{"hex":"f"}"#).is_err());
    }
}
