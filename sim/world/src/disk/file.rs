//! A program's handles: open files and directory locks, and the calls on paths.

use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::inode::Change;
use super::name::Name;
use super::names::Entry;
use super::{Disk, SharedInode, error};
use crate::When;
use crate::kernel::{Ctx, Kernel};
use crate::time::{Sleep, nanos};
use crate::trace::content;

/// An open file. It belongs to the incarnation that opened it.
#[derive(Clone, Debug)]
pub struct File {
    kernel: Rc<Kernel>,
    ctx: Ctx,
    inode: SharedInode,
}

impl Kernel {
    fn on_disk<T>(&self, ctx: Ctx, f: impl FnOnce(&mut Disk) -> T) -> T {
        f(&mut self.state.borrow_mut().nodes[ctx.node as usize].disk)
    }

    fn note_disk(&self, ctx: Ctx, kind: &'static str, subject: u64, detail: u64) {
        let now = self.now();
        self.state.borrow_mut().trace.note(now, ctx, kind, subject, detail);
    }

    /// The start of a disk call: its crash point, then any stall, then `delay` nanoseconds.
    async fn disk_call(self: &Rc<Self>, ctx: Ctx, label: &'static str, delay: u64) {
        self.crash_point(label, When::Before).await;
        self.disk_wait(ctx, delay).await;
    }

    async fn disk_wait(self: &Rc<Self>, ctx: Ctx, delay: u64) {
        let now = self.now();
        let mut until = now + delay;
        if let Some((fault, stalled)) = self.on_disk(ctx, |d| d.stalled_until())
            && stalled > until
        {
            self.effect(fault, "operations_stalled", 1);
            until = stalled;
        }
        if until > now {
            Sleep::until_world(Rc::clone(self), ctx, until).await;
        }
    }
}

fn path_hash(path: &Path) -> u64 {
    content(path.as_os_str().as_encoded_bytes())
}

impl File {
    /// `create`: make it if missing; `new`: it must be missing.
    pub(crate) async fn open(k: &Rc<Kernel>, ctx: Ctx, path: &Path, create: bool, new: bool) -> io::Result<Self> {
        k.disk_call(ctx, "disk.open", 0).await;
        let inode = k.on_disk(ctx, |disk| match disk.lookup(path) {
            Ok(_) if new => error(io::ErrorKind::AlreadyExists),
            Err(e) if e.kind() == io::ErrorKind::NotFound && (create || new) => disk.create(path),
            Ok(_) => disk.file(path),
            Err(e) => Err(e),
        })?;
        k.note_disk(ctx, "open", inode.borrow().id, path_hash(path));
        k.crash_point("disk.open", When::After).await;
        Ok(Self { kernel: Rc::clone(k), ctx, inode })
    }

    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let read = self.kernel.on_disk(self.ctx, |d| nanos(d.law().read));
        self.kernel.disk_call(self.ctx, "disk.read", read).await;
        let inode = self.inode.borrow();
        let data = inode.data();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let to = from.saturating_add(len).min(data.len());
        Ok(Bytes::copy_from_slice(&data[from..to]))
    }

    pub async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let write = self.kernel.on_disk(self.ctx, |d| nanos(d.law().write));
        self.kernel.disk_call(self.ctx, "disk.write", write).await;
        if data.is_empty() {
            return Ok(());
        }
        let Ok(at) = usize::try_from(offset) else { return error(io::ErrorKind::InvalidInput) };
        let (id, hash) = (self.inode.borrow().id, content(&data));
        self.change(Change::Write { at, data })?;
        self.kernel.note_disk(self.ctx, "write", id, hash ^ offset);
        self.kernel.crash_point("disk.write", When::After).await;
        Ok(())
    }

    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.kernel.disk_call(self.ctx, "disk.set_len", 0).await;
        let Ok(new) = usize::try_from(len) else { return error(io::ErrorKind::InvalidInput) };
        self.change(Change::SetLen(new))?;
        self.kernel.note_disk(self.ctx, "set-len", self.inode.borrow().id, len);
        self.kernel.crash_point("disk.set_len", When::After).await;
        Ok(())
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let end = match &change {
            Change::Write { at, data } => at + data.len(),
            Change::SetLen(len) => *len,
        };
        let growth = end.saturating_sub(self.inode.borrow().data().len()) as u64;
        let seq = self.kernel.on_disk(self.ctx, |disk| disk.room_for(growth).map(|()| disk.next_op()));
        match seq {
            Ok(seq) => {
                self.inode.borrow_mut().change(seq, change);
                Ok(())
            }
            Err(fault) => {
                if let Some(fault) = fault {
                    self.kernel.effect_met(fault, "writes_refused", 1);
                }
                error(io::ErrorKind::StorageFull)
            }
        }
    }

    /// Makes durable exactly what was written when it began.
    pub async fn sync(&self) -> io::Result<()> {
        let (k, ctx) = (&self.kernel, self.ctx);
        k.crash_point("disk.sync", When::Before).await;
        let mark = self.inode.borrow().mark();
        let (id, nth) = {
            let mut inode = self.inode.borrow_mut();
            inode.syncs += 1;
            (inode.id, inode.syncs)
        };
        let time = {
            let state = k.state.borrow();
            let node = &state.nodes[ctx.node as usize];
            node.disk.law().sync_time(k.world_seed(), node.key, id, nth)
        };
        k.disk_wait(ctx, time).await;
        if let Some((fault, last)) = k.on_disk(ctx, Disk::sync_error) {
            let dropped = self.inode.borrow_mut().drop_dirty(mark);
            k.effect_met(fault, "syncs_failed", 1);
            k.effect(fault, "bytes_dropped", dropped);
            if last {
                let now = k.now();
                k.state.borrow_mut().effects.end(fault, now);
            }
            k.note_disk(ctx, "sync-err", id, dropped);
            return Err(io::Error::other("input/output error (EIO) in fsync"));
        }
        self.inode.borrow_mut().synced(mark);
        k.note_disk(ctx, "sync", id, mark);
        k.crash_point("disk.sync", When::After).await;
        Ok(())
    }

    pub async fn len(&self) -> io::Result<u64> {
        self.kernel.stay_dead(self.ctx).await;
        Ok(self.inode.borrow().data().len() as u64)
    }
}

pub(crate) async fn read_all(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<Bytes> {
    let read = k.on_disk(ctx, |d| nanos(d.law().read));
    k.disk_call(ctx, "disk.read", read).await;
    let inode = k.on_disk(ctx, |d| d.file(path))?;
    let data = Bytes::copy_from_slice(inode.borrow().data());
    Ok(data)
}

pub(crate) async fn create_dir_all(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<()> {
    on_names(k, ctx, "disk.create_dir", path, |d| d.make_dirs(path)).await
}

pub(crate) async fn rename(k: &Rc<Kernel>, ctx: Ctx, from: &Path, to: &Path) -> io::Result<()> {
    on_names(k, ctx, "disk.rename", to, |d| d.rename(from, to)).await
}

pub(crate) async fn remove_file(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<()> {
    on_names(k, ctx, "disk.remove", path, |d| d.unlink(path)).await
}

pub(crate) async fn remove_dir_all(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<()> {
    on_names(k, ctx, "disk.remove", path, |d| d.unlink_all(path)).await
}

async fn on_names(
    k: &Rc<Kernel>,
    ctx: Ctx,
    label: &'static str,
    path: &Path,
    f: impl FnOnce(&mut Disk) -> io::Result<()>,
) -> io::Result<()> {
    k.disk_call(ctx, label, 0).await;
    k.on_disk(ctx, f)?;
    k.note_disk(ctx, label, path_hash(path), 0);
    k.crash_point(label, When::After).await;
    Ok(())
}

pub(crate) async fn read_dir(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<Vec<(String, bool)>> {
    k.disk_call(ctx, "disk.read_dir", 0).await;
    k.on_disk(ctx, |d| d.list(path))
}

pub(crate) async fn exists(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<bool> {
    k.disk_call(ctx, "disk.exists", 0).await;
    Ok(k.on_disk(ctx, |d| d.lookup(path).is_ok()))
}

pub(crate) async fn sync_dir(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<()> {
    let name = Name::of(path);
    let path = name.path();
    k.crash_point("disk.sync_dir", When::Before).await;
    let (mark, time) = {
        let mut state = k.state.borrow_mut();
        let node = &mut state.nodes[ctx.node as usize];
        if let Entry::File(_) = node.disk.lookup(&path)? {
            return error(io::ErrorKind::NotADirectory);
        }
        node.disk.dir_syncs += 1;
        let time = node.disk.law().sync_time(k.world_seed(), node.key, path_hash(&path), node.disk.dir_syncs);
        (node.disk.name_mark(), time)
    };
    k.disk_wait(ctx, time).await;
    k.on_disk(ctx, |d| d.dir_synced(&name, mark));
    k.note_disk(ctx, "sync-dir", path_hash(&path), mark);
    k.crash_point("disk.sync_dir", When::After).await;
    Ok(())
}

/// An exclusive lock on a file, until dropped or its process dies.
#[derive(Debug)]
pub struct Lock {
    kernel: Rc<Kernel>,
    ctx: Ctx,
    name: Name,
    token: u64,
}

impl Lock {
    pub(crate) async fn acquire(k: &Rc<Kernel>, ctx: Ctx, path: &Path) -> io::Result<Self> {
        let name = Name::of(path);
        // The lock is a file, made if it is missing.
        File::open(k, ctx, &name.path(), true, false).await?;
        let token = k.on_disk(ctx, |d| {
            if d.locks.contains_key(&name) {
                return error(io::ErrorKind::WouldBlock);
            }
            d.lock_tokens += 1;
            d.locks.insert(name.clone(), d.lock_tokens);
            Ok(d.lock_tokens)
        })?;
        Ok(Self { kernel: Rc::clone(k), ctx, name, token })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A dead process has lost it already, and its successor may hold it.
        if self.kernel.alive(self.ctx) {
            let token = self.token;
            self.kernel.on_disk(self.ctx, |d| {
                if d.locks.get(&self.name) == Some(&token) {
                    d.locks.remove(&self.name);
                }
            });
        }
    }
}
