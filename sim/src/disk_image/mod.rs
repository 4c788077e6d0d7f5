//! A second decoder of a broker's disk: files in, partition logs out.
//!
//! It is written from the Kafka protocol's text alone and shares no code with `system/log` or `protocol::batch`, so that a
//! bug in reading or fetching cannot hide a bug in the log, nor one in the log hide behind its own reader.
//! It claims nothing about indexes, checkpoints and snapshots: they can be rebuilt, the batches cannot.
//!
//! ```text
//! <data>/<topic>-<partition>/00000000000000000017.log     record batches, the first at offset 17
//! ```

mod batch;
mod crc32c;
mod varint;

use std::collections::BTreeMap;

use bytes::Bytes;
use history::{LogRecord, LogSource, PartitionLog};

/// What a disk holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskImage {
    /// In order of topic and partition.
    pub logs: Vec<PartitionLog>,
    /// One sentence each: torn or overlapping batches, bad checksums, gaps.
    pub damage: Vec<String>,
}

/// Path and bytes of each segment, by base offset.
type Segments<'a> = BTreeMap<i64, (&'a str, &'a Bytes)>;

/// Decodes the files of broker `node`: path and bytes. Files that are not segments are passed over.
pub fn decode<'a>(node: u32, files: impl IntoIterator<Item = (&'a str, &'a Bytes)>) -> DiskImage {
    let mut partitions: BTreeMap<(String, i32), Segments<'_>> = BTreeMap::new();
    for (path, bytes) in files {
        if let Some((topic, partition, base)) = segment_of(path) {
            partitions.entry((topic, partition)).or_default().insert(base, (path, bytes));
        }
    }
    let mut image = DiskImage::default();
    for ((topic, partition), segments) in partitions {
        let start = segments.keys().next().copied().unwrap_or(0);
        let mut records: Vec<LogRecord> = Vec::new();
        let mut next = start;
        for (base, (path, bytes)) in segments {
            if base != next {
                image.damage.push(format!("{path}: segment starts at offset {base}, the one before ends at {next}"));
                next = next.max(base);
            }
            next = decode_batches(path, bytes, next, &mut records, &mut image.damage);
        }
        image.logs.push(PartitionLog {
            source: LogSource::Disk { node },
            topic,
            partition,
            log_start_offset: start,
            log_end_offset: next,
            high_watermark: None,
            last_stable_offset: None,
            records: records.into(),
        });
    }
    image
}

/// Decodes batches that follow one another, the first at offset `next`. Appends their records and what is wrong with
/// them; `path` says where they came from. Returns the offset after the last batch.
pub fn decode_batches(
    path: &str,
    bytes: &Bytes,
    mut next: i64,
    records: &mut Vec<LogRecord>,
    damage: &mut Vec<String>,
) -> i64 {
    let mut at = 0;
    while at < bytes.len() {
        match batch::decode(&bytes.slice(at..), records) {
            Ok(batch) => {
                if batch.base_offset != next {
                    damage
                        .push(format!("{path}: batch at byte {at} has offset {}, expected {next}", batch.base_offset));
                }
                next = batch.last_offset + 1;
                at += batch.len;
            }
            Err(why) => {
                damage.push(format!("{path}: batch at byte {at} of {}: {why}", bytes.len()));
                return next;
            }
        }
    }
    next
}

/// (topic, partition, base offset) of a segment's path.
fn segment_of(path: &str) -> Option<(String, i32, i64)> {
    let (rest, name) = path.rsplit_once('/')?;
    let dir = rest.rsplit('/').next()?;
    let base: i64 = name.strip_suffix(".log").filter(|stem| stem.len() == 20)?.parse().ok()?;
    let (topic, partition) = dir.rsplit_once('-')?;
    Some((topic.to_owned(), partition.parse().ok()?, base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_are_read() {
        let seg = "/data/events-1/00000000000000000017.log";
        assert_eq!(segment_of(seg), Some(("events".into(), 1, 17)));
        assert_eq!(segment_of("d/my-topic-2/00000000000000000000.log"), Some(("my-topic".into(), 2, 0)));
        for other in
            ["d/events-1/00000000000000000017.index", "d/meta.properties", "d/events-x/00000000000000000000.log"]
        {
            assert_eq!(segment_of(other), None, "{other}");
        }
        let image = decode(0, [("d/t-0/00000000000000000000.log", &Bytes::from_static(b"torn"))]);
        assert_eq!(image.damage.len(), 1);
        assert_eq!(image.logs[0].log_end_offset, 0);
    }

    /// Written by the system's own encoder, read by this decoder.
    #[test]
    fn reads_what_the_encoder_wrote() {
        use bytes::Bytes;
        use protocol::batch::{BatchBuilder, Compression, Record};
        let mut file = Vec::new();
        let mut offset = 5;
        for compression in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let mut builder = BatchBuilder::new().producer(7, 2, 10).transactional().compression(compression);
            for i in 0..3i64 {
                builder.push(&Record {
                    offset: i,
                    timestamp: 1_000 + i,
                    key: Some(Bytes::from(format!("k{i}"))),
                    value: Some(Bytes::from("v".repeat(200))),
                    headers: vec![(Bytes::from_static(b"op.client"), Some(Bytes::from_static(b"3")))],
                });
            }
            let mut bytes = bytes::BytesMut::from(&builder.build()[..]);
            protocol::batch::assign(&mut bytes, offset, 4);
            file.extend_from_slice(&bytes);
            offset += 3;
        }
        let file = Bytes::from(file);
        let image = decode(1, [("d/t-0/00000000000000000005.log", &file)]);
        assert_eq!(image.damage, Vec::<String>::new());
        let log = &image.logs[0];
        assert_eq!((log.log_start_offset, log.log_end_offset, log.records.len()), (5, 20, 15));
        let last = &log.records[14];
        assert_eq!((last.offset, last.producer_id, last.producer_epoch, last.sequence), (19, 7, 2, 12));
        assert_eq!((last.leader_epoch, last.timestamp_ms, last.transactional), (4, 1_002, true));
        assert_eq!(last.header("op.client"), Some("3"));
        // Any flipped bit is noticed.
        for at in (0..file.len()).step_by(37) {
            let mut bad = file.to_vec();
            bad[at] ^= 0x10;
            let found = decode(1, [("d/t-0/00000000000000000005.log", &bad.into())]);
            assert!(!found.damage.is_empty() || found.logs != image.logs, "byte {at}");
        }
    }
}
