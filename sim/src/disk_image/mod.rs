//! A second decoder of a broker's disk: files in, partition logs out.
//!
//! It is written from the Kafka protocol's text alone and shares no code with `system/log` or `protocol::batch`, so that a
//! bug in reading or fetching cannot hide a bug in the log, nor one in the log hide behind its own reader.
//! It claims nothing about indexes, checkpoints and snapshots: they can be rebuilt, the batches cannot.
//!
//! ```text
//! <data>/<topic>-<partition>/00000000000000000017.log     record batches, the first at or after offset 17
//!                            00000000000000000017-00000000000000000040.log.swap
//!                                                         compacted: stands for the segments from 17 to before 40
//!                            00000000000000000017.log.cleaned    not yet finished, of no account
//!                            offset-checkpoint            where the log starts, whether it may have holes
//! ```
//! A gap between batches is damage, unless the log may have holes: it was compacted, or copied from one that was. A batch
//! without records is what compaction leaves of one.

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

/// Files of one partition.
#[derive(Default)]
struct Files<'a> {
    /// Path and bytes of each segment, by base offset.
    segments: BTreeMap<i64, (&'a str, &'a Bytes)>,
    /// (base offset, end, path, bytes) of segments on their way into the log.
    swaps: Vec<(i64, i64, &'a str, &'a Bytes)>,
    start: i64,
    holes: bool,
}

impl<'a> Files<'a> {
    /// The segments as a start of the broker would leave them.
    fn swapped(mut self) -> Self {
        for (base, end, path, bytes) in std::mem::take(&mut self.swaps) {
            self.segments.retain(|at, _| !(base..end).contains(at));
            self.segments.insert(base, (path, bytes));
        }
        self
    }
}

/// Decodes the files of broker `node`: path and bytes. Files that are not segments are passed over.
pub fn decode<'a>(node: u32, files: impl IntoIterator<Item = (&'a str, &'a Bytes)>) -> DiskImage {
    let mut image = DiskImage::default();
    let mut partitions: BTreeMap<(String, i32), Files<'_>> = BTreeMap::new();
    for (path, bytes) in files {
        let Some((topic, partition, what)) = file_of(path) else { continue };
        let of = partitions.entry((topic, partition)).or_default();
        match what {
            What::Segment(base) => {
                of.segments.insert(base, (path, bytes));
            }
            What::Swap(base, end) => of.swaps.push((base, end, path, bytes)),
            What::Checkpoint => match checkpoint(bytes) {
                Some((start, holes)) => (of.start, of.holes) = (start, holes),
                None => image.damage.push(format!("{path}: not a checkpoint")),
            },
        }
    }
    for ((topic, partition), files) in partitions {
        let Files { segments, start, holes, .. } = files.swapped();
        let mut records: Vec<LogRecord> = Vec::new();
        let mut next = segments.keys().next().copied().unwrap_or(0);
        let start = start.max(next);
        for (base, (path, bytes)) in segments {
            if base < next || (base > next && !holes) {
                image.damage.push(format!("{path}: segment starts at offset {base}, the one before ends at {next}"));
            }
            next = next.max(base);
            next = decode_batches(path, bytes, next, holes, &mut records, &mut image.damage);
        }
        // What the log's start has passed is there until its whole segment goes.
        records.drain(..records.partition_point(|r| r.offset < start));
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
/// them; `path` says where they came from. Returns the offset after the last batch. `holes`: a log that is compacted may have
/// some.
pub fn decode_batches(
    path: &str,
    bytes: &Bytes,
    mut next: i64,
    holes: bool,
    records: &mut Vec<LogRecord>,
    damage: &mut Vec<String>,
) -> i64 {
    let mut at = 0;
    while at < bytes.len() {
        match batch::decode(&bytes.slice(at..), records) {
            Ok(batch) => {
                if batch.base_offset < next || (batch.base_offset > next && !holes) {
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

/// What a file of a partition's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// By its base offset.
    Segment(i64),
    /// By base offset and end.
    Swap(i64, i64),
    Checkpoint,
}

/// (topic, partition, what it is) of a file that counts.
fn file_of(path: &str) -> Option<(String, i32, What)> {
    let (rest, name) = path.rsplit_once('/')?;
    let dir = rest.rsplit('/').next()?;
    let offset = |stem: &str| Some(stem).filter(|stem| stem.len() == 20)?.parse::<i64>().ok();
    let what = if name == "offset-checkpoint" {
        What::Checkpoint
    } else if let Some(swap) = name.strip_suffix(".log.swap") {
        let (base, end) = swap.split_once('-')?;
        What::Swap(offset(base)?, offset(end)?)
    } else {
        What::Segment(offset(name.strip_suffix(".log")?)?)
    };
    let (topic, partition) = dir.rsplit_once('-')?;
    Some((topic.to_owned(), partition.parse().ok()?, what))
}

/// (log start offset, whether there may be holes), little endian behind an envelope of 20 bytes: start i64, first dirty
/// offset i64, holes u8.
fn checkpoint(bytes: &Bytes) -> Option<(i64, bool)> {
    let payload = bytes.get(20..37).filter(|_| bytes.len() == 37)?;
    Some((i64::from_le_bytes(payload[..8].try_into().ok()?), payload[16] != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_are_read() {
        let seg = "/data/events-1/00000000000000000017.log";
        assert_eq!(file_of(seg), Some(("events".into(), 1, What::Segment(17))));
        assert_eq!(file_of("d/my-topic-2/00000000000000000000.log"), Some(("my-topic".into(), 2, What::Segment(0))));
        let swap = "d/t-0/00000000000000000017-00000000000000000040.log.swap";
        assert_eq!(file_of(swap), Some(("t".into(), 0, What::Swap(17, 40))));
        assert_eq!(file_of("d/t-0/offset-checkpoint"), Some(("t".into(), 0, What::Checkpoint)));
        for other in [
            "d/events-1/00000000000000000017.index",
            "d/events-1/00000000000000000017.log.cleaned",
            "d/meta.properties",
            "d/events-x/00000000000000000000.log",
        ] {
            assert_eq!(file_of(other), None, "{other}");
        }
        let image = decode(0, [("d/t-0/00000000000000000000.log", &Bytes::from_static(b"torn"))]);
        assert_eq!(image.damage.len(), 1);
        assert_eq!(image.logs[0].log_end_offset, 0);
    }

    /// As compaction leaves a log when it stops half way: a batch with a record gone, one with none left, a hole, and a swap
    /// that has not taken the place of its segments yet.
    #[test]
    fn compacted_logs_have_holes_and_nothing_else_wrong() {
        use protocol::batch::{BatchBuilder, BatchHeader, Limits, Record, assign, decode_records, retain};
        let batch = |offset: i64, keep: &[usize]| {
            let mut b = BatchBuilder::new().producer(7, 0, offset as i32);
            for i in 0..3i64 {
                b.push(&Record { timestamp: i, key: Some(Bytes::from(vec![i as u8])), ..Record::default() });
            }
            let mut bytes = bytes::BytesMut::from(&b.build()[..]);
            assign(&mut bytes, offset, 1);
            let whole = bytes.freeze();
            let (header, records) = (BatchHeader::parse(&whole), decode_records(&whole, &Limits::default()));
            let records = records.unwrap();
            let kept: Vec<Record> = keep.iter().map(|i| records[*i].clone()).collect();
            retain(&header.unwrap(), &kept, Some(5_000)).unwrap()
        };
        let all = [0, 1, 2];
        let swap = Bytes::from([batch(0, &[1]), batch(6, &[])].concat());
        let old = Bytes::from([batch(0, &all), batch(3, &all)].concat());
        let last = batch(15, &[0, 2]);
        let checkpoint = Bytes::from([&[0; 20][..], &1i64.to_le_bytes(), &12i64.to_le_bytes(), &[1]].concat());
        let files = [
            ("d/t-0/00000000000000000000.log", &old),
            ("d/t-0/00000000000000000000-00000000000000000012.log.swap", &swap),
            ("d/t-0/00000000000000000009.log", &old),
            ("d/t-0/00000000000000000012.log", &last),
            ("d/t-0/00000000000000000012.log.cleaned", &old),
            ("d/t-0/offset-checkpoint", &checkpoint),
        ];
        let image = decode(0, files);
        assert_eq!(image.damage, Vec::<String>::new());
        let log = &image.logs[0];
        assert_eq!((log.log_start_offset, log.log_end_offset), (1, 18));
        let found: Vec<_> = log.records.iter().map(|r| (r.offset, r.timestamp_ms, r.sequence)).collect();
        assert_eq!(found, [(1, 1, 1), (15, 0, 15), (17, 2, 17)]);
        let strict = decode(0, files.into_iter().filter(|(path, _)| !path.ends_with("checkpoint")));
        assert!(!strict.damage.is_empty(), "without the checkpoint a hole is damage");
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
