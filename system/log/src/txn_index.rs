//! Aborted transactions, so that a read_committed consumer can leave their records out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Offset;
use crate::format::Kind;

pub(crate) const KIND: Kind = Kind { tag: *b"ABRT", version: 1 };

/// One aborted transaction on this partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: Offset,
    /// Its abort marker.
    pub last_offset: Offset,
    /// First unstable offset when the marker was written: no transaction that ends later starts before it.
    pub(crate) stable: Offset,
}

/// All aborted transactions of the log, by the offset of their marker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TxnIndex {
    by_marker: BTreeMap<Offset, AbortedTransaction>,
}

impl TxnIndex {
    pub fn push(&mut self, txn: AbortedTransaction) {
        self.by_marker.insert(txn.last_offset, txn);
    }

    /// Forgets the transactions whose marker lies in `[base, end)` and is not among those that stay: none of their records
    /// is left.
    pub fn retain_markers(&mut self, base: Offset, end: Offset, stay: &BTreeSet<Offset>) {
        self.by_marker.retain(|marker, _| !(base..end).contains(marker) || stay.contains(marker));
    }

    /// Forgets the transactions whose marker lies below `start`.
    pub fn forget_below(&mut self, start: Offset) {
        self.by_marker = self.by_marker.split_off(&start);
    }

    /// Aborted transactions with a record or marker in `[from, to)`, in order of their first offset.
    pub fn overlapping(&self, from: Offset, to: Offset) -> Vec<AbortedTransaction> {
        let mut found = Vec::new();
        for txn in self.by_marker.range(from..).map(|(_, t)| t) {
            if txn.first_offset < to {
                found.push(*txn);
            }
            if txn.stable >= to {
                break;
            }
        }
        found.sort_by_key(|t| t.first_offset);
        found
    }

    /// The entries whose marker lies in `[base, end)`.
    pub fn encode(&self, base: Offset, end: Offset, out: &mut BytesMut) {
        for t in self.by_marker.range(base..end).map(|(_, t)| t) {
            out.put_i64_le(t.producer_id);
            out.put_i64_le(t.first_offset);
            out.put_i64_le(t.last_offset);
            out.put_i64_le(t.stable);
        }
    }

    pub fn decode(mut bytes: Bytes, base: Offset, end: Offset) -> Option<Vec<AbortedTransaction>> {
        if !bytes.len().is_multiple_of(32) {
            return None;
        }
        let mut txns = Vec::with_capacity(bytes.len() / 32);
        while bytes.has_remaining() {
            let t = AbortedTransaction {
                producer_id: bytes.get_i64_le(),
                first_offset: bytes.get_i64_le(),
                last_offset: bytes.get_i64_le(),
                stable: bytes.get_i64_le(),
            };
            if t.first_offset >= t.last_offset || !(base..end).contains(&t.last_offset) {
                return None;
            }
            txns.push(t);
        }
        Some(txns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(producer_id: i64, first_offset: Offset, last_offset: Offset, stable: Offset) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, stable }
    }

    #[test]
    fn overlap_is_by_first_record_and_marker() {
        let mut i = TxnIndex::default();
        // 1: 0..10; 2 interleaved: 5..8; 3: 20..30.
        i.push(txn(2, 5, 8, 0));
        i.push(txn(1, 0, 10, 11));
        i.push(txn(3, 20, 30, 31));
        let ids = |from, to| i.overlapping(from, to).iter().map(|t| t.producer_id).collect::<Vec<_>>();
        assert_eq!(ids(0, 100), [1, 2, 3]);
        assert_eq!(ids(9, 20), [1], "its marker is at 10, and 3 starts at the exclusive bound");
        assert_eq!(ids(9, 21), [1, 3]);
        assert_eq!(ids(11, 20), Vec::<i64>::new());
        assert_eq!(ids(0, 1), [1]);
        let mut out = BytesMut::new();
        i.encode(0, 20, &mut out);
        assert_eq!(TxnIndex::decode(out.freeze(), 0, 20).unwrap().len(), 2);
    }
}
