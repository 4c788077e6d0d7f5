//! Names of files and directories: those the programs see, and those that survive a power loss.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::inode::Inode;
use super::{Disk, SharedInode, error, normal};

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
    dirs: Vec<PathBuf>,
    pub(crate) change: NameChange,
}

#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Link(PathBuf, Entry),
    Unlink(PathBuf),
    /// With everything below; the entry itself is carried, for a law that lost its creation.
    Rename(PathBuf, PathBuf, Entry),
}

pub(crate) type Names = BTreeMap<PathBuf, Entry>;

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
                if let (Some(moved), Ok(rest)) = (names.remove(&path), path.strip_prefix(from)) {
                    names.insert(to.join(rest), moved);
                }
            }
            names.remove(from);
            names.insert(to.clone(), entry.clone());
        }
    }
}

/// Paths strictly below `dir`.
fn below(names: &Names, dir: &Path) -> Vec<PathBuf> {
    let range = names.range::<Path, _>((std::ops::Bound::Excluded(dir), std::ops::Bound::Unbounded));
    range.map(|(p, _)| p).take_while(|p| p.starts_with(dir)).cloned().collect()
}

/// Takes out what no longer hangs on the root.
pub(crate) fn drop_orphans(names: &mut Names) -> u64 {
    let mut orphans = 0;
    let mut kept: Names = BTreeMap::new();
    // Parents sort before their children.
    for (path, entry) in std::mem::take(names) {
        let rooted = path.parent().is_none_or(|dir| matches!(kept.get(dir), Some(Entry::Dir)));
        if rooted {
            kept.insert(path, entry);
        } else {
            orphans += 1;
        }
    }
    *names = kept;
    orphans
}

impl Disk {
    fn record(&mut self, dirs: Vec<PathBuf>, change: NameChange) {
        apply(&mut self.names, &change);
        let seq = self.next_op();
        self.pending.push(NameOp { seq, dirs, change });
    }

    pub(crate) fn lookup(&self, path: &Path) -> io::Result<&Entry> {
        self.names.get(&normal(path)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn file(&self, path: &Path) -> io::Result<SharedInode> {
        match self.lookup(path)? {
            Entry::File(inode) => Ok(inode.clone()),
            Entry::Dir => error(io::ErrorKind::IsADirectory),
        }
    }

    /// The directory that will hold `path`.
    fn parent(&self, path: &Path) -> io::Result<PathBuf> {
        let Some(dir) = path.parent() else { return error(io::ErrorKind::InvalidInput) };
        match self.names.get(dir) {
            Some(Entry::Dir) => Ok(dir.to_owned()),
            Some(Entry::File(_)) => error(io::ErrorKind::NotADirectory),
            None => error(io::ErrorKind::NotFound),
        }
    }

    pub(crate) fn create(&mut self, path: &Path) -> io::Result<SharedInode> {
        let path = normal(path);
        let dir = self.parent(&path)?;
        self.inodes += 1;
        let inode: SharedInode = std::rc::Rc::new(Inode::new(self.inodes).into());
        self.record(vec![dir], NameChange::Link(path, Entry::File(inode.clone())));
        Ok(inode)
    }

    pub(crate) fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        let mut missing = Vec::new();
        for dir in path.ancestors() {
            match self.names.get(dir) {
                Some(Entry::Dir) => break,
                Some(Entry::File(_)) if dir == path => return error(io::ErrorKind::AlreadyExists),
                Some(Entry::File(_)) => return error(io::ErrorKind::NotADirectory),
                None => missing.push(dir.to_owned()),
            }
        }
        for dir in missing.into_iter().rev() {
            let parent = self.parent(&dir)?;
            self.record(vec![parent], NameChange::Link(dir, Entry::Dir));
        }
        Ok(())
    }

    /// (name, is a directory), sorted by name.
    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<(String, bool)>> {
        let path = normal(path);
        if let Entry::File(_) = self.lookup(&path)? {
            return error(io::ErrorKind::NotADirectory);
        }
        let mut entries = Vec::new();
        for child in below(&self.names, &path) {
            if child.parent() == Some(&path)
                && let (Some(name), Some(entry)) = (child.file_name(), self.names.get(&child))
            {
                entries.push((name.to_string_lossy().into_owned(), matches!(entry, Entry::Dir)));
            }
        }
        entries.sort();
        Ok(entries)
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        let entry = self.lookup(&from)?.clone();
        let mut dirs = vec![self.parent(&from)?, self.parent(&to)?];
        dirs.dedup();
        match (&entry, self.names.get(&to)) {
            (Entry::File(_), Some(Entry::Dir)) => return error(io::ErrorKind::IsADirectory),
            (Entry::Dir, Some(Entry::File(_))) => return error(io::ErrorKind::NotADirectory),
            (Entry::Dir, Some(Entry::Dir)) if !below(&self.names, &to).is_empty() => {
                return error(io::ErrorKind::DirectoryNotEmpty);
            }
            (Entry::Dir, _) if to != from && to.starts_with(&from) => return error(io::ErrorKind::InvalidInput),
            _ => {}
        }
        if from != to {
            self.record(dirs, NameChange::Rename(from, to, entry));
        }
        Ok(())
    }

    pub(crate) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        self.file(&path)?;
        let dir = self.parent(&path)?;
        self.record(vec![dir], NameChange::Unlink(path));
        Ok(())
    }

    pub(crate) fn unlink_all(&mut self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        if let Entry::File(_) = self.lookup(&path)? {
            return error(io::ErrorKind::NotADirectory);
        }
        for child in below(&self.names, &path).into_iter().rev() {
            let dir = self.parent(&child)?;
            self.record(vec![dir], NameChange::Unlink(child));
        }
        let dir = self.parent(&path)?;
        self.record(vec![dir], NameChange::Unlink(path));
        Ok(())
    }

    /// The newest operation so far, for a directory sync that begins now.
    pub(crate) fn name_mark(&self) -> u64 {
        self.ops
    }

    /// The names of `dir` as of `mark` are durable.
    pub(crate) fn dir_synced(&mut self, dir: &Path, mark: u64) {
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
