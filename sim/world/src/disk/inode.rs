//! A file's content: the page cache, and the writes that are not durable yet with the means to undo them.

use std::collections::VecDeque;

use bytes::Bytes;

pub(crate) const SECTOR: u64 = 512;

/// An unsynced change.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// Order among all operations of the disk.
    pub(crate) seq: u64,
    pub(crate) change: Change,
    old_len: usize,
    /// What the change overwrote or cut off.
    old: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { at: usize, data: Bytes },
    SetLen(usize),
}

#[derive(Debug)]
pub(crate) struct Inode {
    /// Coordinate in draws.
    pub(crate) id: u64,
    data: Vec<u8>,
    pending: VecDeque<Op>,
    /// The durable content, kept apart once a failed sync has parted it from cache minus pending.
    apart: Option<Vec<u8>>,
    pub(crate) syncs: u64,
}

impl Inode {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, data: Vec::new(), pending: VecDeque::new(), apart: None, syncs: 0 }
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &Op> {
        self.pending.iter()
    }

    pub(crate) fn change(&mut self, seq: u64, change: Change) {
        let old_len = self.data.len();
        let old = match &change {
            Change::Write { at, data } => {
                let (from, to) = ((*at).min(old_len), (at + data.len()).min(old_len));
                Bytes::copy_from_slice(&self.data[from..to])
            }
            Change::SetLen(len) => Bytes::copy_from_slice(&self.data[(*len).min(old_len)..]),
        };
        apply(&mut self.data, &change);
        self.pending.push_back(Op { seq, change, old_len, old });
    }

    /// The newest change so far, which a sync that begins now makes durable with all before it.
    pub(crate) fn mark(&self) -> u64 {
        self.pending.back().map_or(0, |op| op.seq)
    }

    pub(crate) fn synced(&mut self, mark: u64) {
        while self.pending.front().is_some_and(|op| op.seq <= mark) {
            if let (Some(op), Some(apart)) = (self.pending.pop_front(), &mut self.apart) {
                apply(apart, &op.change);
            }
        }
    }

    /// A failed sync: the kernel drops the dirty pages, so the cache falls back to what is durable, and a later sync
    /// that succeeds does not bring them back. Returns bytes dropped.
    pub(crate) fn drop_dirty(&mut self, mark: u64) -> u64 {
        let mut durable = self.durable();
        let mut dropped = 0;
        while self.pending.front().is_some_and(|op| op.seq <= mark) {
            if let Some(op) = self.pending.pop_front() {
                dropped += op.size();
            }
        }
        self.apart = Some(durable.clone());
        for op in &mut self.pending {
            op.old_len = durable.len();
            apply(&mut durable, &op.change);
        }
        self.data = durable;
        dropped
    }

    /// The content a power loss falls back to when every unsynced change is lost.
    pub(crate) fn durable(&self) -> Vec<u8> {
        if let Some(apart) = &self.apart {
            return apart.clone();
        }
        let mut data = self.data.clone();
        for op in self.pending.iter().rev() {
            match &op.change {
                Change::Write { at, .. } => data[*at..at + op.old.len()].copy_from_slice(&op.old),
                Change::SetLen(len) => {
                    data.truncate((*len).min(op.old_len));
                    data.extend_from_slice(&op.old);
                }
            }
            data.resize(op.old_len, 0);
        }
        data
    }

    /// The machine comes back with this content.
    pub(crate) fn settle(&mut self, data: Vec<u8>) {
        self.data = data;
        self.pending.clear();
        self.apart = None;
    }
}

impl Op {
    pub(crate) fn size(&self) -> u64 {
        match &self.change {
            Change::Write { data, .. } => data.len() as u64,
            Change::SetLen(_) => 0,
        }
    }
}

pub(crate) fn apply(file: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, data } => {
            let end = at + data.len();
            if *at == file.len() {
                file.extend_from_slice(data);
                return;
            }
            if file.len() < end {
                file.resize(end, 0);
            }
            file[*at..end].copy_from_slice(data);
        }
        Change::SetLen(len) => file.resize(*len, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, Vec<u8>),
        SetLen(usize),
        Sync,
        SyncError,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..40, prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, d)| Step::Write(at, d)),
            2 => (0usize..60).prop_map(Step::SetLen),
            1 => Just(Step::Sync),
            1 => Just(Step::SyncError),
        ]
    }

    proptest! {
        /// Against the plain model: a durable copy, and the cache as durable plus the changes pending.
        #[test]
        fn durable_content_is_what_was_synced(steps in prop::collection::vec(step(), 0..40)) {
            let mut inode = Inode::new(0);
            let (mut durable, mut pending): (Vec<u8>, Vec<Change>) = (Vec::new(), Vec::new());
            for (seq, step) in (1..).zip(steps) {
                match step {
                    Step::Write(at, data) => {
                        let change = Change::Write { at, data: data.into() };
                        inode.change(seq, change.clone());
                        pending.push(change);
                    }
                    Step::SetLen(len) => {
                        inode.change(seq, Change::SetLen(len));
                        pending.push(Change::SetLen(len));
                    }
                    Step::Sync => {
                        inode.synced(inode.mark());
                        pending.drain(..).for_each(|c| apply(&mut durable, &c));
                    }
                    Step::SyncError => {
                        inode.drop_dirty(inode.mark());
                        pending.clear();
                    }
                }
                let mut cache = durable.clone();
                pending.iter().for_each(|c| apply(&mut cache, c));
                prop_assert_eq!(inode.data(), &cache[..]);
                prop_assert_eq!(inode.durable(), durable.clone());
            }
        }
    }
}
