//! Files, with the durability rules of a POSIX file system made explicit: data is durable once [`File::sync`]
//! returned, a created, renamed or removed name once [`sync_dir`] of its directory returned.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use world::port;

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// Must exist; opened for reading and writing.
    Existing,
    /// Created if missing; opened for reading and writing, never truncated.
    OrCreate,
    /// Must not exist.
    New,
}

/// An open file. Clones share it. Every call names its position: there is no cursor.
#[derive(Clone, Debug)]
pub struct File(Opened);

#[derive(Clone, Debug)]
enum Opened {
    Real(Arc<std::fs::File>),
    Sim(port::File),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(io::Error::other)?
}

impl File {
    pub async fn open(path: impl AsRef<Path>, how: Open) -> io::Result<Self> {
        if port::active() {
            let (create, new) = (how != Open::Existing, how == Open::New);
            return Ok(Self(Opened::Sim(port::open(path.as_ref(), create, new).await?)));
        }
        let path = path.as_ref().to_owned();
        let file = blocking(move || {
            let mut o = std::fs::OpenOptions::new();
            o.read(true).write(true);
            match how {
                Open::Existing => {}
                Open::OrCreate => {
                    o.create(true).truncate(false);
                }
                Open::New => {
                    o.create_new(true);
                }
            }
            o.open(path)
        })
        .await?;
        Ok(Self(Opened::Real(Arc::new(file))))
    }

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        use std::os::unix::fs::FileExt;
        let file = match &self.0 {
            Opened::Sim(file) => return file.read_at(offset, len).await,
            Opened::Real(file) => Arc::clone(file),
        };
        blocking(move || {
            let mut buf = vec![0; len];
            let mut done = 0;
            while done < len {
                match file.read_at(&mut buf[done..], offset + done as u64) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            buf.truncate(done);
            Ok(Bytes::from(buf))
        })
        .await
    }

    /// Writes all of `data` at `offset`, into the page cache. On an error any prefix may have been written.
    pub async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = match &self.0 {
            Opened::Sim(file) => return file.write_at(offset, data).await,
            Opened::Real(file) => Arc::clone(file),
        };
        blocking(move || file.write_all_at(&data, offset)).await
    }

    /// Makes all writes and length changes that were finished before the call durable. After an error the unsynced
    /// data may be lost even if a later call succeeds: treat it as fatal for the file.
    pub async fn sync(&self) -> io::Result<()> {
        let file = match &self.0 {
            Opened::Sim(file) => return file.sync().await,
            Opened::Real(file) => Arc::clone(file),
        };
        blocking(move || file.sync_data()).await
    }

    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        let file = match &self.0 {
            Opened::Sim(file) => return file.set_len(len).await,
            Opened::Real(file) => Arc::clone(file),
        };
        blocking(move || file.set_len(len)).await
    }

    pub async fn len(&self) -> io::Result<u64> {
        let file = match &self.0 {
            Opened::Sim(file) => return file.len().await,
            Opened::Real(file) => Arc::clone(file),
        };
        blocking(move || Ok(file.metadata()?.len())).await
    }
}

/// The whole of a file.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Bytes> {
    if port::active() {
        return port::read(path.as_ref()).await;
    }
    let path = path.as_ref().to_owned();
    blocking(move || Ok(Bytes::from(std::fs::read(path)?))).await
}

pub async fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    if port::active() {
        return port::create_dir_all(path.as_ref()).await;
    }
    let path = path.as_ref().to_owned();
    blocking(move || std::fs::create_dir_all(path)).await
}

/// The entries of a directory, sorted by name.
pub async fn read_dir(path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
    if port::active() {
        let entries = port::read_dir(path.as_ref()).await?;
        return Ok(entries.into_iter().map(|(name, is_dir)| DirEntry { name, is_dir }).collect());
    }
    let path = path.as_ref().to_owned();
    blocking(move || {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
        }
        entries.sort();
        Ok(entries)
    })
    .await
}

pub async fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    if port::active() {
        return port::exists(path.as_ref()).await;
    }
    let path = path.as_ref().to_owned();
    blocking(move || std::fs::exists(path)).await
}

/// Atomically replaces `to` by `from`; durable once both directories are synced.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    if port::active() {
        return port::rename(from.as_ref(), to.as_ref()).await;
    }
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    blocking(move || std::fs::rename(from, to)).await
}

pub async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    if port::active() {
        return port::remove_file(path.as_ref()).await;
    }
    let path = path.as_ref().to_owned();
    blocking(move || std::fs::remove_file(path)).await
}

pub async fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    if port::active() {
        return port::remove_dir_all(path.as_ref()).await;
    }
    let path = path.as_ref().to_owned();
    blocking(move || std::fs::remove_dir_all(path)).await
}

/// Makes the names in `path` durable.
pub async fn sync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    if port::active() {
        return port::sync_dir(path.as_ref()).await;
    }
    let path = path.as_ref().to_owned();
    blocking(move || std::fs::File::open(path)?.sync_all()).await
}

/// Makes the names of `path` and of every directory above it durable. Wanted before anything below `path` counts as
/// durable, whoever made the directories: an earlier start may have died between making and syncing them, and now they
/// look as if they had always been there.
pub async fn sync_ancestors(path: impl AsRef<Path>) -> io::Result<()> {
    for dir in path.as_ref().ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
        match sync_dir(dir).await {
            // Not ours to open, so not ours to have made.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(())
}

/// Replaces `path` by `data` atomically and durably: a temporary file beside it, synced, renamed, directory synced.
pub async fn replace(path: impl AsRef<Path>, data: Bytes) -> io::Result<()> {
    let path: PathBuf = path.as_ref().to_owned();
    let mut tmp = path.clone().into_os_string();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let file = File::open(&tmp, Open::OrCreate).await?;
    file.set_len(0).await?;
    file.write_at(0, data).await?;
    file.sync().await?;
    drop(file);
    rename(&tmp, &path).await?;
    match path.parent() {
        Some(dir) => sync_dir(dir).await,
        None => Ok(()),
    }
}

/// An exclusive lock on a directory, held until dropped or until the process dies.
#[derive(Debug)]
#[allow(dead_code, reason = "held for its Drop")]
pub struct DirLock(Locked);

#[derive(Debug)]
#[allow(dead_code, reason = "held for its Drop")]
enum Locked {
    Real(std::fs::File),
    Sim(port::Lock),
}

impl DirLock {
    /// `WouldBlock` if another process (or another node of this one) holds it.
    pub async fn acquire(dir: impl AsRef<Path>) -> io::Result<Self> {
        let path = dir.as_ref().join("lock");
        if port::active() {
            return Ok(Self(Locked::Sim(port::lock(&path).await?)));
        }
        let file = blocking(move || {
            let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.try_lock().map_err(io::Error::from)?;
            Ok(file)
        })
        .await?;
        Ok(Self(Locked::Real(file)))
    }
}
