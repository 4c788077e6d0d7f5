//! A machine's disk: a page cache over durable storage.
//!
//! ```text
//!  write, set_len, create, rename, remove  ->  page cache + list of unsynced operations
//!  sync of a file                          ->  its operations so far are durable
//!  sync of a directory                     ->  its names so far are durable
//!  process crash                           ->  nothing is lost
//!  power loss                              ->  each unsynced operation is kept, lost or torn, by the law's draws
//! ```
//!
//! A file keeps how to undo each unsynced write, so that a sync costs nothing and only a power loss rebuilds.

mod file;
mod inode;
mod name;
mod names;
mod power;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

pub use file::{File, Lock};
pub(crate) use file::{create_dir_all, exists, read_all, read_dir, remove_dir_all, remove_file, rename, sync_dir};
pub use power::PowerLaw;

use crate::FaultId;
use crate::time::nanos;
use inode::Inode;
use name::Name;
use names::{Entry, NameOp, Names};

/// How long a disk takes, in its own draws, and how much it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskLaw {
    /// A sync of a file or directory takes between these two.
    pub sync_min: Duration,
    pub sync_max: Duration,
    /// A read takes this long; a read from the page cache costs nothing much.
    pub read: Duration,
    /// A write to the page cache takes this long.
    pub write: Duration,
    /// Bytes of file content; 0 is unlimited.
    pub capacity: u64,
}

impl DiskLaw {
    /// A data-centre SSD: 0.1 to 1 ms a sync, page cache at no cost, no limit.
    pub const SSD: Self = Self {
        sync_min: Duration::from_micros(100),
        sync_max: Duration::from_millis(1),
        read: Duration::ZERO,
        write: Duration::ZERO,
        capacity: 0,
    };
}

/// What can be wrong with a disk for a time.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The next so many syncs fail, and their dirty pages are dropped.
    SyncErrors(u64),
    /// Holds no more than so many bytes.
    Capacity(u64),
    /// Nothing returns before this time.
    Stall(u64),
    Law(DiskLaw),
}

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) law: DiskLaw,
    names: Names,
    durable: Names,
    pending: Vec<NameOp>,
    /// Orders all operations of the disk.
    ops: u64,
    inodes: u64,
    dir_syncs: u64,
    locks: BTreeMap<Name, u64>,
    lock_tokens: u64,
    pub(crate) troubles: Vec<(FaultId, Trouble)>,
}

pub(crate) type SharedInode = Rc<RefCell<Inode>>;

impl Disk {
    pub(crate) fn new(law: DiskLaw) -> Self {
        let root: BTreeMap<_, _> = [(Name::root(), Entry::Dir)].into();
        Self {
            law,
            names: root.clone(),
            durable: root,
            pending: Vec::new(),
            ops: 0,
            inodes: 0,
            dir_syncs: 0,
            locks: BTreeMap::new(),
            lock_tokens: 0,
            troubles: Vec::new(),
        }
    }

    /// A process crash: the page cache stays, its locks go.
    pub(crate) fn process_died(&mut self) {
        self.locks.clear();
    }

    /// Number of files that were there.
    pub(crate) fn wipe(&mut self) -> u64 {
        let files = self.names.values().filter(|e| matches!(e, Entry::File(_))).count() as u64;
        let (law, troubles) = (self.law, std::mem::take(&mut self.troubles));
        let (ops, inodes) = (self.ops, self.inodes);
        *self = Self { troubles, ops, inodes, ..Self::new(law) };
        files
    }

    /// All files as a program would read them now.
    pub(crate) fn image(&self) -> BTreeMap<PathBuf, Bytes> {
        let files = self.names.iter().filter_map(|(name, entry)| match entry {
            Entry::File(inode) => Some((name.path(), Bytes::copy_from_slice(inode.borrow().data()))),
            Entry::Dir => None,
        });
        files.collect()
    }

    pub(crate) fn law(&self) -> DiskLaw {
        let law = self.troubles.iter().rev().find_map(|(_, t)| if let Trouble::Law(l) = t { Some(*l) } else { None });
        law.unwrap_or(self.law)
    }

    /// When operations may return, and by whose doing.
    fn stalled_until(&self) -> Option<(FaultId, u64)> {
        let stalls =
            self.troubles.iter().filter_map(|(id, t)| if let Trouble::Stall(at) = t { Some((*id, *at)) } else { None });
        stalls.max_by_key(|s| s.1)
    }

    /// The fault that fails this sync, and whether this was the last one it fails.
    fn sync_error(&mut self) -> Option<(FaultId, bool)> {
        for (id, trouble) in &mut self.troubles {
            if let Trouble::SyncErrors(left) = trouble
                && *left > 0
            {
                *left -= 1;
                return Some((*id, *left == 0));
            }
        }
        None
    }

    /// Err with the fault to blame, if `growth` more bytes do not fit.
    fn room_for(&self, growth: u64) -> Result<(), Option<FaultId>> {
        let limits = self.troubles.iter().filter_map(|(id, t)| match t {
            Trouble::Capacity(bytes) => Some((*bytes, Some(*id))),
            _ => None,
        });
        let own = (self.law.capacity > 0).then_some((self.law.capacity, None));
        let Some((capacity, fault)) = limits.chain(own).min_by_key(|l| l.0) else { return Ok(()) };
        if growth > 0 && self.used() + growth > capacity { Err(fault) } else { Ok(()) }
    }

    pub(crate) fn used(&self) -> u64 {
        self.names.values().map(Entry::len).sum()
    }

    pub(crate) fn heal(&mut self, fault: FaultId) {
        self.troubles.retain(|t| t.0 != fault);
    }

    fn next_op(&mut self) -> u64 {
        self.ops += 1;
        self.ops
    }
}

impl DiskLaw {
    /// The `n`th sync of what `key` names.
    fn sync_time(&self, world_seed: u64, key: u64, id: u64, n: u64) -> u64 {
        seed::draw(world_seed, "sync-time", &[key, id, n]).range(nanos(self.sync_min), nanos(self.sync_max))
    }
}

fn error<T>(kind: io::ErrorKind) -> io::Result<T> {
    Err(kind.into())
}
