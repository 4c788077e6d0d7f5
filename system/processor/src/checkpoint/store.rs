//! Where complete checkpoints are kept. A checkpoint is complete when `put` has returned: it is whole and durable, or
//! it is not there.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + 'a>>;

#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} checkpoint {n}: {source}")]
pub struct StoreError {
    pub verb: &'static str,
    /// 0 when no single one is concerned.
    pub n: u64,
    pub source: io::Error,
}

/// Checkpoints by number.
pub trait CheckpointStore {
    /// Atomic and durable once it returns `Ok`; after an error the outcome is unknown until the next `list`.
    fn put(&self, n: u64, data: Bytes) -> Pending<'_, ()>;
    fn get(&self, n: u64) -> Pending<'_, Bytes>;
    /// The numbers of all complete ones, ascending.
    fn list(&self) -> Pending<'_, Vec<u64>>;
    /// Nothing happens if it is not there.
    fn delete(&self, n: u64) -> Pending<'_, ()>;
}

/// One file a checkpoint, in a directory of the coordinator's own disk.
#[derive(Debug)]
pub struct DiskStore {
    dir: PathBuf,
}

impl DiskStore {
    /// Creates the directory, durably: its name is synced in its parent.
    pub async fn open(dir: PathBuf) -> Result<Self, StoreError> {
        let fail = |source| StoreError { verb: "open the directory of", n: 0, source };
        env::disk::create_dir_all(&dir).await.map_err(fail)?;
        env::disk::sync_ancestors(&dir).await.map_err(fail)?;
        let store = Self { dir };
        // A crash inside `put` leaves a file half written, or one that is whole and renamed but whose name is not yet
        // durable: it is listed from now on, so no later power loss may take it back.
        env::disk::sync_dir(&store.dir).await.map_err(fail)?;
        for entry in env::disk::read_dir(&store.dir).await.map_err(fail)? {
            if entry.name.ends_with(".tmp") {
                env::disk::remove_file(store.dir.join(entry.name)).await.map_err(fail)?;
            }
        }
        Ok(store)
    }

    fn path(&self, n: u64) -> PathBuf {
        self.dir.join(format!("checkpoint-{n:020}"))
    }
}

impl CheckpointStore for DiskStore {
    fn put(&self, n: u64, data: Bytes) -> Pending<'_, ()> {
        Box::pin(async move {
            env::disk::replace(self.path(n), data).await.map_err(|source| StoreError { verb: "store", n, source })
        })
    }

    fn get(&self, n: u64) -> Pending<'_, Bytes> {
        Box::pin(
            async move { env::disk::read(self.path(n)).await.map_err(|source| StoreError { verb: "read", n, source }) },
        )
    }

    fn list(&self) -> Pending<'_, Vec<u64>> {
        Box::pin(async move {
            let fail = |source| StoreError { verb: "list", n: 0, source };
            let entries = env::disk::read_dir(&self.dir).await.map_err(fail)?;
            let number = |name: &str| name.strip_prefix("checkpoint-").and_then(|n| n.parse().ok());
            let mut all: Vec<u64> = entries.iter().filter_map(|e| number(&e.name)).collect();
            all.sort_unstable();
            Ok(all)
        })
    }

    fn delete(&self, n: u64) -> Pending<'_, ()> {
        Box::pin(async move {
            match env::disk::remove_file(self.path(n)).await {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(StoreError { verb: "delete", n, source })
                }
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_get_list_delete_and_reopen() {
        let dir = tempfile::tempdir().unwrap();
        env::node::run_real(async {
            let path = dir.path().join("checkpoints");
            let store = DiskStore::open(path.clone()).await.unwrap();
            assert!(store.list().await.unwrap().is_empty());
            for n in [2, 10, 1] {
                store.put(n, Bytes::from(vec![n as u8])).await.unwrap();
            }
            store.put(10, Bytes::from_static(b"again")).await.unwrap();
            store.delete(1).await.unwrap();
            store.delete(1).await.unwrap();
            let torn = env::disk::File::open(path.join("checkpoint-3.tmp"), env::disk::Open::New).await.unwrap();
            drop(torn);
            let store = DiskStore::open(path).await.unwrap();
            assert_eq!(store.list().await.unwrap(), [2, 10]);
            assert_eq!(store.get(10).await.unwrap(), "again");
            assert!(store.get(1).await.is_err());
        })
        .unwrap();
    }
}
