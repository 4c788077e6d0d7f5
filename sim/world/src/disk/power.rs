//! What a power loss leaves of the changes that were not synced.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::inode::{Change, Op, SECTOR};
use super::names::{self, Entry, NameChange};
use super::{Disk, SharedInode};

/// The fate of unsynced changes at a power loss. Each draw is at (machine, incarnation, operation).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerLaw {
    /// All reached the disk: the lucky case, which a test must not rely on.
    Kept,
    /// None did.
    Lost,
    /// The first so many did, and the next one is torn at a sector of 512 bytes.
    Prefix,
    /// Any subset did; some are torn, sector by sector.
    Subset,
    /// One of the others, drawn.
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

enum Pending {
    Data(SharedInode, Op),
    Name(NameChange),
}

impl Disk {
    /// Returns counts of what it did.
    pub(crate) fn power_loss(&mut self, law: PowerLaw, world_seed: u64, ids: &[u64; 2]) -> Vec<(&'static str, u64)> {
        let draw = |what: &str, n: u64| seed::draw(world_seed, what, &[ids[0], ids[1], n]);
        let law = match law {
            PowerLaw::Any => {
                let all = [PowerLaw::Kept, PowerLaw::Lost, PowerLaw::Prefix, PowerLaw::Subset];
                all[draw("power-law", 0).range(0, 3) as usize]
            }
            law => law,
        };
        let files = self.files();
        let mut ops: BTreeMap<u64, Pending> = BTreeMap::new();
        for file in &files {
            for op in file.borrow().pending() {
                ops.insert(op.seq, Pending::Data(Rc::clone(file), op.clone()));
            }
        }
        for op in std::mem::take(&mut self.pending) {
            ops.insert(op.seq, Pending::Name(op.change));
        }
        let mut content: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for file in &files {
            let file = file.borrow();
            content.insert(file.id, file.durable());
        }
        let first_lost = draw("power-prefix", 0).range(0, ops.len() as u64);
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (n, (seq, op)) in (0..).zip(ops) {
            let fate = match law {
                PowerLaw::Kept => Fate::Kept,
                PowerLaw::Lost => Fate::Lost,
                PowerLaw::Prefix if n < first_lost => Fate::Kept,
                PowerLaw::Prefix if n == first_lost => Fate::Torn,
                PowerLaw::Prefix => Fate::Lost,
                PowerLaw::Subset | PowerLaw::Any => match draw("power-fate", seq).range(0, 2) {
                    0 => Fate::Kept,
                    1 => Fate::Lost,
                    _ => Fate::Torn,
                },
            };
            let name = match op {
                Pending::Name(change) => {
                    // A name is written or not; there is no half of one.
                    if fate == Fate::Kept {
                        names::apply(&mut self.durable, &change);
                        "names_kept"
                    } else {
                        "names_lost"
                    }
                }
                Pending::Data(file, op) => {
                    let data = content.entry(file.borrow().id).or_default();
                    match (&op.change, fate) {
                        (_, Fate::Lost) | (Change::SetLen(_), Fate::Torn) => "writes_lost",
                        (change, Fate::Kept) => {
                            super::inode::apply(data, change);
                            "writes_kept"
                        }
                        (Change::Write { at, data: written }, Fate::Torn) => {
                            let in_order = law == PowerLaw::Prefix;
                            tear(data, *at, written, in_order, |n| {
                                seed::draw(world_seed, "tear", &[ids[0], ids[1], seq, n])
                            })
                        }
                    }
                }
            };
            *counts.entry(name).or_default() += 1;
        }
        let orphans = names::drop_orphans(&mut self.durable);
        *counts.entry("names_orphaned").or_default() += orphans;
        self.names = self.durable.clone();
        for file in &files {
            let id = file.borrow().id;
            file.borrow_mut().settle(content.remove(&id).unwrap_or_default());
        }
        counts.into_iter().collect()
    }

    /// Every file that a name leads to, in either view, once.
    fn files(&self) -> Vec<SharedInode> {
        let mut files: BTreeMap<u64, SharedInode> = BTreeMap::new();
        let mut add = |entry: &Entry| {
            if let Entry::File(inode) = entry {
                files.insert(inode.borrow().id, Rc::clone(inode));
            }
        };
        self.names.values().chain(self.durable.values()).for_each(&mut add);
        for op in &self.pending {
            if let NameChange::Link(_, entry) | NameChange::Rename(_, _, entry) = &op.change {
                add(entry);
            }
        }
        files.into_values().collect()
    }
}

/// Keeps some sectors of a write: the first few, or any.
fn tear(file: &mut Vec<u8>, at: usize, data: &[u8], in_order: bool, draw: impl Fn(u64) -> seed::Draw) -> &'static str {
    let sector = SECTOR as usize;
    let mut pieces = Vec::new();
    let mut from = 0;
    while from < data.len() {
        let end = ((at + from) / sector + 1) * sector - at;
        pieces.push((from, end.min(data.len())));
        from = end;
    }
    let keep_first = draw(u64::MAX).range(0, pieces.len() as u64);
    let mut kept = 0;
    for (n, &(from, to)) in (0..).zip(&pieces) {
        let keep = if in_order { n < keep_first } else { draw(n).chance(1, 2) };
        if keep {
            kept += 1;
            let end = at + to;
            if file.len() < end {
                file.resize(end, 0);
            }
            file[at + from..end].copy_from_slice(&data[from..to]);
        }
    }
    match kept {
        0 => "writes_lost",
        n if n == pieces.len() => "writes_kept",
        _ => "writes_torn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_keeps_whole_sectors() {
        for n in 0..200 {
            for in_order in [true, false] {
                let data: Vec<u8> = vec![7; 2_000];
                let mut file = vec![1; 700];
                tear(&mut file, 300, &data, in_order, |i| seed::draw(n, "tear", &[i]));
                for (at, pair) in (1..).zip(file.windows(2)) {
                    let inside = at > 300 && at < 2_300;
                    assert!(pair[0] == pair[1] || !inside || at % 512 == 0 || at == 700, "torn at {at}");
                }
            }
        }
    }
}
