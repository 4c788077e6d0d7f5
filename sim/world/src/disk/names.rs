//! Names of files and directories: those the programs see, and those that survive a power loss.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::inode::Inode;
use super::name::Name;
use super::{Disk, SharedInode, error};

#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Dir,
    File(SharedInode),
}

impl Entry {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Entry::Dir => 0,
            Entry::File(inode) => inode.borrow().data().len() as u64,
        }
    }
}

/// An unsynced change of names.
#[derive(Clone, Debug)]
pub(crate) struct NameOp {
    pub(crate) seq: u64,
    /// Directories still to be synced before it is durable.
    dirs: Vec<Name>,
    pub(crate) change: NameChange,
}

#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Link(Name, Entry),
    Unlink(Name),
    /// With everything below; the entry itself is carried, for a law that lost its creation.
    Rename(Name, Name, Entry),
}

pub(crate) type Names = BTreeMap<Name, Entry>;

pub(crate) fn apply(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Link(path, entry) => {
            names.insert(path.clone(), entry.clone());
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to, entry) => {
            for path in below(names, from) {
                if let Some(moved) = names.remove(&path) {
                    names.insert(path.moved(from, to), moved);
                }
            }
            names.remove(from);
            names.insert(to.clone(), entry.clone());
        }
    }
}

/// Names strictly below `dir`, in order.
fn below(names: &Names, dir: &Name) -> Vec<Name> {
    let range = names.range::<str, _>((std::ops::Bound::Included(&*dir.prefix()), std::ops::Bound::Unbounded));
    range.map(|(name, _)| name).take_while(|name| name.is_below(dir)).cloned().collect()
}

/// Takes out what no longer hangs on the root.
pub(crate) fn drop_orphans(names: &mut Names) -> u64 {
    let mut orphans = 0;
    let mut kept: Names = BTreeMap::new();
    // Parents sort before their children.
    for (name, entry) in std::mem::take(names) {
        let rooted = name.dir_text().is_none_or(|dir| matches!(kept.get(dir), Some(Entry::Dir)));
        if rooted {
            kept.insert(name, entry);
        } else {
            orphans += 1;
        }
    }
    *names = kept;
    orphans
}

impl Disk {
    fn record(&mut self, dirs: Vec<Name>, change: NameChange) {
        apply(&mut self.names, &change);
        let seq = self.next_op();
        self.pending.push(NameOp { seq, dirs, change });
    }

    pub(crate) fn lookup(&self, path: &Path) -> io::Result<&Entry> {
        self.entry(&Name::of(path))
    }

    fn entry(&self, name: &Name) -> io::Result<&Entry> {
        self.names.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn file(&self, path: &Path) -> io::Result<SharedInode> {
        self.file_of(&Name::of(path))
    }

    fn file_of(&self, name: &Name) -> io::Result<SharedInode> {
        match self.entry(name)? {
            Entry::File(inode) => Ok(inode.clone()),
            Entry::Dir => error(io::ErrorKind::IsADirectory),
        }
    }

    /// The directory that will hold `name`.
    fn parent(&self, name: &Name) -> io::Result<Name> {
        let Some(dir) = name.dir() else { return error(io::ErrorKind::InvalidInput) };
        match self.names.get(&dir) {
            Some(Entry::Dir) => Ok(dir),
            Some(Entry::File(_)) => error(io::ErrorKind::NotADirectory),
            None => error(io::ErrorKind::NotFound),
        }
    }

    pub(crate) fn create(&mut self, path: &Path) -> io::Result<SharedInode> {
        let name = Name::of(path);
        let dir = self.parent(&name)?;
        self.inodes += 1;
        let inode: SharedInode = std::rc::Rc::new(Inode::new(self.inodes).into());
        self.record(vec![dir], NameChange::Link(name, Entry::File(inode.clone())));
        Ok(inode)
    }

    pub(crate) fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let name = Name::of(path);
        let mut missing = Vec::new();
        let mut next = Some(name.clone());
        while let Some(dir) = next {
            match self.names.get(&dir) {
                Some(Entry::Dir) => break,
                Some(Entry::File(_)) if dir == name => return error(io::ErrorKind::AlreadyExists),
                Some(Entry::File(_)) => return error(io::ErrorKind::NotADirectory),
                None => next = dir.dir(),
            }
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            let parent = self.parent(&dir)?;
            self.record(vec![parent], NameChange::Link(dir, Entry::Dir));
        }
        Ok(())
    }

    /// (name, is a directory), sorted by name.
    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<(String, bool)>> {
        let name = Name::of(path);
        if let Entry::File(_) = self.entry(&name)? {
            return error(io::ErrorKind::NotADirectory);
        }
        let mut entries = Vec::new();
        for child in below(&self.names, &name) {
            if child.dir().as_ref() == Some(&name)
                && let Some(entry) = self.names.get(&child)
            {
                entries.push((child.last().to_owned(), matches!(entry, Entry::Dir)));
            }
        }
        entries.sort();
        Ok(entries)
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (Name::of(from), Name::of(to));
        let entry = self.entry(&from)?.clone();
        let mut dirs = vec![self.parent(&from)?, self.parent(&to)?];
        dirs.dedup();
        match (&entry, self.names.get(&to)) {
            (Entry::File(_), Some(Entry::Dir)) => return error(io::ErrorKind::IsADirectory),
            (Entry::Dir, Some(Entry::File(_))) => return error(io::ErrorKind::NotADirectory),
            (Entry::Dir, Some(Entry::Dir)) if !below(&self.names, &to).is_empty() => {
                return error(io::ErrorKind::DirectoryNotEmpty);
            }
            (Entry::Dir, _) if to.is_below(&from) => return error(io::ErrorKind::InvalidInput),
            _ => {}
        }
        if from != to {
            self.record(dirs, NameChange::Rename(from, to, entry));
        }
        Ok(())
    }

    pub(crate) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let name = Name::of(path);
        self.file_of(&name)?;
        let dir = self.parent(&name)?;
        self.record(vec![dir], NameChange::Unlink(name));
        Ok(())
    }

    pub(crate) fn unlink_all(&mut self, path: &Path) -> io::Result<()> {
        let name = Name::of(path);
        if let Entry::File(_) = self.entry(&name)? {
            return error(io::ErrorKind::NotADirectory);
        }
        for child in below(&self.names, &name).into_iter().rev() {
            let dir = self.parent(&child)?;
            self.record(vec![dir], NameChange::Unlink(child));
        }
        let dir = self.parent(&name)?;
        self.record(vec![dir], NameChange::Unlink(name));
        Ok(())
    }

    /// The newest operation so far, for a directory sync that begins now.
    pub(crate) fn name_mark(&self) -> u64 {
        self.ops
    }

    /// The names of `dir` as of `mark` are durable.
    pub(crate) fn dir_synced(&mut self, dir: &Name, mark: u64) {
        let mut left = Vec::with_capacity(self.pending.len());
        for mut op in std::mem::take(&mut self.pending) {
            if op.seq <= mark {
                op.dirs.retain(|d| d != dir);
            }
            if op.dirs.is_empty() {
                apply(&mut self.durable, &op.change);
            } else {
                left.push(op);
            }
        }
        self.pending = left;
    }
}
