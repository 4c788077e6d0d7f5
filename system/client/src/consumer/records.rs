//! From the bytes of a Fetch response to the records an application may see.
//!
//! With `read_committed` the broker sends everything below the last stable offset, and lists the aborted transactions
//! that touch it, each by producer id and first offset. A batch of such a producer is skipped from that offset on until
//! the producer's abort marker:
//! ```text
//! offsets    10 P1 data   11 P2 data   12 P1 ABORT   13 P1 data   14 P2 COMMIT   15 P1 COMMIT
//! aborted    [(P1, 10)]
//! records                 11                         13
//! position after: 16 — skipped batches and markers move it all the same
//! ```

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use protocol::batch::{BatchError, ControlRecord, ControlType, Limits, Record, decode_records, split};

use super::Isolation;

/// A transaction that was aborted, as a Fetch response lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Aborted {
    pub first_offset: i64,
    pub producer_id: i64,
}

/// What could be read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub records: Vec<Record>,
    /// The next offset to fetch.
    pub position: i64,
    /// The leader epoch of the last batch that was read.
    pub leader_epoch: Option<i32>,
    /// Why reading stopped before the end of the bytes. What was read before is good.
    pub error: Option<BatchError>,
}

pub(super) fn read(
    data: Bytes,
    position: i64,
    isolation: Isolation,
    mut aborted: Vec<Aborted>,
    limits: &Limits,
) -> Read {
    aborted.sort();
    let mut to_come = VecDeque::from(aborted);
    let mut aborting: BTreeSet<i64> = BTreeSet::new();
    let mut read = Read { position, ..Read::default() };
    for batch in split(data) {
        let (header, batch) = match batch {
            Ok(found) => found,
            // A response may end in the middle of a batch: it comes whole next time.
            Err(BatchError::Truncated { .. }) => break,
            Err(e) => {
                read.error = Some(e);
                break;
            }
        };
        if header.next_offset() <= position {
            continue;
        }
        let checked = header.verify_crc(&batch);
        while let Some(next) = to_come.pop_front_if(|a| a.first_offset <= header.last_offset()) {
            aborting.insert(next.producer_id);
        }
        let hidden = isolation == Isolation::ReadCommitted
            && header.is_transactional()
            && aborting.contains(&header.producer_id)
            && !header.is_control();
        env::sometimes!(hidden, "a consumer skips an aborted batch");
        let decoded = match checked {
            Ok(()) if hidden => Ok(Vec::new()),
            Ok(()) => decode_records(&batch, limits),
            Err(e) => Err(e),
        };
        match decoded {
            Ok(records) if header.is_control() => {
                let marker = records.first().and_then(|r| ControlRecord::decode(r).ok().flatten());
                if marker.is_some_and(|m| m.control_type == ControlType::Abort) {
                    aborting.remove(&header.producer_id);
                }
            }
            Ok(records) => read.records.extend(records.into_iter().filter(|r| r.offset >= position)),
            Err(e) => {
                read.error = Some(e);
                break;
            }
        }
        read.position = header.next_offset();
        read.leader_epoch = Some(header.partition_leader_epoch);
    }
    read
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use protocol::batch::{BatchBuilder, assign};

    use super::*;

    struct LogOf(BytesMut, i64);

    impl LogOf {
        fn put(&mut self, batch: Bytes, records: i64) {
            let mut batch = BytesMut::from(&batch[..]);
            assign(&mut batch, self.1, 0);
            self.0.extend_from_slice(&batch);
            self.1 += records;
        }

        fn data(&mut self, producer: Option<i64>, values: &[&'static str]) {
            let mut b = BatchBuilder::new();
            if let Some(id) = producer {
                b = b.producer(id, 0, 0).transactional();
            }
            for v in values {
                b.push(&Record { value: Some(Bytes::from_static(v.as_bytes())), ..Record::default() });
            }
            self.put(b.build(), values.len() as i64);
        }

        fn marker(&mut self, producer: i64, control_type: ControlType) {
            self.put(ControlRecord { control_type, coordinator_epoch: 0 }.batch(producer, 0, 0), 1);
        }
    }

    fn values(read: &Read) -> Vec<(i64, String)> {
        let text = |r: &Record| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap();
        read.records.iter().map(|r| (r.offset, text(r))).collect()
    }

    fn example() -> Bytes {
        let mut log = LogOf(BytesMut::new(), 10);
        log.data(Some(1), &["a"]);
        log.data(Some(2), &["b"]);
        log.marker(1, ControlType::Abort);
        log.data(Some(1), &["c"]);
        log.marker(2, ControlType::Commit);
        log.marker(1, ControlType::Commit);
        log.0.freeze()
    }

    #[test]
    fn aborted_transactions_are_hidden_and_markers_move_the_position() {
        let aborted = vec![Aborted { first_offset: 10, producer_id: 1 }];
        let got = read(example(), 10, Isolation::ReadCommitted, aborted, &Limits::default());
        assert_eq!(values(&got), [(11, "b".into()), (13, "c".into())]);
        assert_eq!((got.position, got.error), (16, None));
    }

    #[test]
    fn read_uncommitted_sees_all_but_markers() {
        let got = read(example(), 10, Isolation::ReadUncommitted, Vec::new(), &Limits::default());
        assert_eq!(values(&got), [(10, "a".into()), (11, "b".into()), (13, "c".into())]);
        assert_eq!(got.position, 16);
    }

    #[test]
    fn starts_inside_a_batch_and_stops_at_a_cut_one() {
        let mut log = LogOf(BytesMut::new(), 0);
        log.data(None, &["a", "b", "c"]);
        log.data(None, &["d"]);
        let whole = log.0.freeze();
        let got = read(whole.slice(..whole.len() - 1), 1, Isolation::ReadCommitted, Vec::new(), &Limits::default());
        assert_eq!(values(&got), [(1, "b".into()), (2, "c".into())]);
        assert_eq!((got.position, got.error), (3, None));
    }

    #[test]
    fn a_rotten_batch_ends_the_read_after_the_good_ones() {
        let mut log = LogOf(BytesMut::new(), 0);
        log.data(None, &["a"]);
        let good = log.0.len();
        log.data(None, &["b"]);
        log.0[good + 65] ^= 1;
        let got = read(log.0.freeze(), 0, Isolation::ReadCommitted, Vec::new(), &Limits::default());
        assert_eq!(values(&got), [(0, "a".into())]);
        assert_eq!(got.position, 1);
        assert!(matches!(got.error, Some(BatchError::Crc { .. })));
    }

    #[test]
    fn a_transaction_aborted_before_the_position_is_still_hidden() {
        let aborted = vec![Aborted { first_offset: 3, producer_id: 1 }];
        let got = read(example(), 10, Isolation::ReadCommitted, aborted, &Limits::default());
        assert_eq!(values(&got), [(11, "b".into()), (13, "c".into())]);
    }
}
