//! What must hold at every moment.

use super::*;

impl World {
    pub(crate) fn commit(&mut self, id: i32, entry: Entry) {
        let known = self.committed.iter().rev().find(|e| e.batch.base <= entry.batch.base);
        match known {
            Some(known) if known.batch.next > entry.batch.base => {
                assert_eq!(*known, entry, "node {id} committed something else than another did");
            }
            _ => {
                let end = self.committed.last().map_or(0, |e| e.batch.next);
                assert_eq!(entry.batch.base, end, "node {id} skipped committed records");
                self.committed.push(entry);
            }
        }
    }

    /// A new leader holds everything that was ever committed.
    pub(crate) fn is_complete(&self, id: i32, epoch: i32) {
        let node = &self.nodes[&id];
        for committed in self.committed.iter().filter(|e| e.batch.base >= node.disk.log.start) {
            assert!(node.disk.log.entries.contains(committed), "leader {id} of {epoch} lacks {committed:?}");
        }
        assert!(node.disk.log.start <= self.committed.last().map_or(0, |e| e.batch.next));
    }

    pub(crate) fn logs_match(&self) {
        for a in self.nodes.values() {
            for b in self.nodes.values().filter(|b| b.id > a.id) {
                let from = a.disk.log.start.max(b.disk.log.start);
                let of = |n: &Node| -> Vec<Entry> {
                    n.disk.log.entries.iter().filter(|e| e.batch.base >= from).copied().collect()
                };
                let (x, y) = (of(a), of(b));
                let shared = (0..x.len().min(y.len())).rev().find(|&i| x[i].batch == y[i].batch);
                if let Some(last) = shared {
                    assert_eq!(x[..=last], y[..=last], "logs of {} and {} differ below a shared batch", a.id, b.id);
                }
            }
        }
    }
}
