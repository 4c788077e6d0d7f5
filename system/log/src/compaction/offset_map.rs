//! The newest offset of each key in the dirty part of a log: the one large thing a cleaner keeps in memory.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::Offset;

/// Of an entry beside the key's own bytes: offset, handle, its share of the tree's nodes.
const ENTRY_BYTES: usize = 64;

/// Keys whole, not their hashes: two keys are never taken for one.
#[derive(Debug)]
pub(crate) struct OffsetMap {
    newest: BTreeMap<Bytes, Offset>,
    bytes: usize,
    max_bytes: usize,
}

impl OffsetMap {
    pub fn new(max_bytes: usize) -> Self {
        Self { newest: BTreeMap::new(), bytes: 0, max_bytes }
    }

    /// Whether these keys, all of them new, fit. The first ones always do, or there would be no end of it.
    pub fn has_room<'a>(&self, keys: impl Iterator<Item = &'a Bytes>) -> bool {
        self.newest.is_empty() || self.bytes + keys.map(|k| k.len() + ENTRY_BYTES).sum::<usize>() <= self.max_bytes
    }

    /// Offsets come in order.
    pub fn put(&mut self, key: &Bytes, offset: Offset) {
        if let Some(newest) = self.newest.get_mut(key) {
            *newest = offset;
            return;
        }
        self.bytes += key.len() + ENTRY_BYTES;
        // A copy: the key's bytes are part of a whole batch.
        self.newest.insert(Bytes::copy_from_slice(key), offset);
    }

    /// Whether a later record of the key is known.
    pub fn supersedes(&self, key: &Bytes, offset: Offset) -> bool {
        self.newest.get(key).is_some_and(|newest| *newest > offset)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_by_whole_batches() {
        let mut map = OffsetMap::new(300);
        let keys: Vec<Bytes> = (0u8..9).map(|i| vec![i; 36].into()).collect();
        assert!(map.has_room(keys.iter()), "the first batch always fits");
        for (key, offset) in keys[..2].iter().zip(0..) {
            map.put(key, offset);
        }
        assert_eq!(map.bytes(), 200);
        assert!(map.has_room(keys[2..3].iter()) && !map.has_room(keys[2..4].iter()));
        map.put(&keys[0], 5);
        assert_eq!(map.bytes(), 200);
        assert!(map.supersedes(&keys[0], 4) && !map.supersedes(&keys[0], 5) && !map.supersedes(&keys[5], 0));
    }
}
