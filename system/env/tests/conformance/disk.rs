//! Files, directories and locks.

crate::both!(
    write_and_read,
    reads_stop_at_the_end,
    a_gap_is_zeros,
    lengths,
    ways_to_open,
    clones_share_a_file,
    rename_replaces,
    rename_moves_directories,
    rename_refuses,
    directories_are_listed_in_order,
    create_dir_all_is_idempotent,
    remove,
    an_unlinked_file_lives_while_open,
    replace_is_whole,
    lock_excludes,
    sync_succeeds,
    deep_sync_order,
);

mod cases {
    use std::io::ErrorKind;

    use bytes::Bytes;
    use env::disk::{self, DirLock, File, Open};

    use crate::Place;

    async fn kind<T: std::fmt::Debug>(f: impl Future<Output = std::io::Result<T>>) -> ErrorKind {
        f.await.unwrap_err().kind()
    }

    async fn put(path: impl AsRef<std::path::Path>, data: &'static [u8]) -> File {
        let file = File::open(path, Open::OrCreate).await.unwrap();
        file.write_at(0, Bytes::from_static(data)).await.unwrap();
        file
    }

    pub async fn write_and_read(p: Place) {
        let file = put(p.path("f"), b"hello world").await;
        file.write_at(6, Bytes::from_static(b"WORLD!")).await.unwrap();
        assert_eq!(file.read_at(0, 100).await.unwrap(), "hello WORLD!");
        assert_eq!(file.read_at(6, 5).await.unwrap(), "WORLD");
        assert_eq!(disk::read(p.path("f")).await.unwrap(), "hello WORLD!");
        file.write_at(3, Bytes::new()).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 12);
    }

    pub async fn reads_stop_at_the_end(p: Place) {
        let file = put(p.path("f"), b"abc").await;
        assert_eq!(file.read_at(1, 10).await.unwrap(), "bc");
        assert_eq!(file.read_at(3, 10).await.unwrap(), "");
        assert_eq!(file.read_at(1 << 40, 10).await.unwrap(), "");
        assert_eq!(file.read_at(1, 0).await.unwrap(), "");
    }

    pub async fn a_gap_is_zeros(p: Place) {
        let file = put(p.path("f"), b"a").await;
        file.write_at(3, Bytes::from_static(b"d")).await.unwrap();
        assert_eq!(file.read_at(0, 10).await.unwrap(), &b"a\0\0d"[..]);
    }

    pub async fn lengths(p: Place) {
        let file = put(p.path("f"), b"abcdef").await;
        file.set_len(3).await.unwrap();
        file.set_len(5).await.unwrap();
        assert_eq!(file.read_at(0, 10).await.unwrap(), &b"abc\0\0"[..]);
        assert_eq!(file.len().await.unwrap(), 5);
    }

    pub async fn ways_to_open(p: Place) {
        assert_eq!(kind(File::open(p.path("f"), Open::Existing)).await, ErrorKind::NotFound);
        put(p.path("f"), b"kept").await;
        assert_eq!(kind(File::open(p.path("f"), Open::New)).await, ErrorKind::AlreadyExists);
        let again = File::open(p.path("f"), Open::OrCreate).await.unwrap();
        assert_eq!(again.len().await.unwrap(), 4, "never truncated");
        File::open(p.path("g"), Open::New).await.unwrap();
        assert_eq!(kind(File::open(p.path("no/f"), Open::OrCreate)).await, ErrorKind::NotFound);
        assert_eq!(kind(File::open(p.path("f/x"), Open::OrCreate)).await, ErrorKind::NotADirectory);
        disk::create_dir_all(p.path("d")).await.unwrap();
        assert_eq!(kind(File::open(p.path("d"), Open::Existing)).await, ErrorKind::IsADirectory);
        assert_eq!(kind(disk::read(p.path("missing"))).await, ErrorKind::NotFound);
        assert_eq!(kind(disk::read(p.path("d"))).await, ErrorKind::IsADirectory);
    }

    pub async fn clones_share_a_file(p: Place) {
        let a = put(p.path("f"), b"one").await;
        let b = a.clone();
        let c = File::open(p.path("f"), Open::Existing).await.unwrap();
        b.write_at(0, Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(a.read_at(0, 3).await.unwrap(), "two");
        assert_eq!(c.read_at(0, 3).await.unwrap(), "two");
    }

    pub async fn rename_replaces(p: Place) {
        let old = put(p.path("to"), b"old").await;
        put(p.path("from"), b"new").await;
        disk::rename(p.path("from"), p.path("to")).await.unwrap();
        assert_eq!(disk::read(p.path("to")).await.unwrap(), "new");
        assert!(!disk::exists(p.path("from")).await.unwrap());
        assert_eq!(old.read_at(0, 3).await.unwrap(), "old", "a handle follows its file, not its name");
        disk::rename(p.path("to"), p.path("to")).await.unwrap();
        assert_eq!(disk::read(p.path("to")).await.unwrap(), "new");
    }

    pub async fn rename_moves_directories(p: Place) {
        disk::create_dir_all(p.path("a/b")).await.unwrap();
        put(p.path("a/b/f"), b"deep").await;
        put(p.path("a/g"), b"flat").await;
        disk::create_dir_all(p.path("c")).await.unwrap();
        disk::rename(p.path("a"), p.path("c/d")).await.unwrap();
        assert_eq!(disk::read(p.path("c/d/b/f")).await.unwrap(), "deep");
        assert_eq!(disk::read(p.path("c/d/g")).await.unwrap(), "flat");
        assert!(!disk::exists(p.path("a")).await.unwrap());
        assert!(!disk::exists(p.path("a/b/f")).await.unwrap());
    }

    pub async fn rename_refuses(p: Place) {
        put(p.path("f"), b"f").await;
        disk::create_dir_all(p.path("d/e")).await.unwrap();
        assert_eq!(kind(disk::rename(p.path("no"), p.path("x"))).await, ErrorKind::NotFound);
        assert_eq!(kind(disk::rename(p.path("f"), p.path("no/x"))).await, ErrorKind::NotFound);
        assert_eq!(kind(disk::rename(p.path("f"), p.path("d"))).await, ErrorKind::IsADirectory);
        assert_eq!(kind(disk::rename(p.path("d"), p.path("f"))).await, ErrorKind::NotADirectory);
        disk::create_dir_all(p.path("d2")).await.unwrap();
        assert_eq!(kind(disk::rename(p.path("d2"), p.path("d"))).await, ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind(disk::rename(p.path("d"), p.path("d/e/x"))).await, ErrorKind::InvalidInput);
    }

    pub async fn directories_are_listed_in_order(p: Place) {
        for name in ["b", "a", "c.d", "c"] {
            put(p.path(name), b"").await;
        }
        disk::create_dir_all(p.path("bb/inner")).await.unwrap();
        let entries = disk::read_dir(&p.dir).await.unwrap();
        let names: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.is_dir)).collect();
        assert_eq!(names, [("a", false), ("b", false), ("bb", true), ("c", false), ("c.d", false)]);
        assert_eq!(kind(disk::read_dir(p.path("no"))).await, ErrorKind::NotFound);
        assert_eq!(kind(disk::read_dir(p.path("a"))).await, ErrorKind::NotADirectory);
    }

    pub async fn create_dir_all_is_idempotent(p: Place) {
        disk::create_dir_all(p.path("a/b/c")).await.unwrap();
        disk::create_dir_all(p.path("a/b/c")).await.unwrap();
        disk::create_dir_all(p.path("a/b")).await.unwrap();
        put(p.path("f"), b"").await;
        assert_eq!(kind(disk::create_dir_all(p.path("f"))).await, ErrorKind::AlreadyExists);
        assert_eq!(kind(disk::create_dir_all(p.path("f/x"))).await, ErrorKind::NotADirectory);
    }

    pub async fn remove(p: Place) {
        put(p.path("f"), b"").await;
        disk::create_dir_all(p.path("d/e")).await.unwrap();
        put(p.path("d/e/f"), b"").await;
        assert_eq!(kind(disk::remove_file(p.path("d"))).await, ErrorKind::IsADirectory);
        assert_eq!(kind(disk::remove_dir_all(p.path("f"))).await, ErrorKind::NotADirectory);
        disk::remove_dir_all(p.path("d")).await.unwrap();
        assert!(!disk::exists(p.path("d/e/f")).await.unwrap());
        assert!(!disk::exists(p.path("d")).await.unwrap());
        disk::remove_file(p.path("f")).await.unwrap();
        assert_eq!(kind(disk::remove_file(p.path("f"))).await, ErrorKind::NotFound);
        assert_eq!(kind(disk::remove_dir_all(p.path("d"))).await, ErrorKind::NotFound);
    }

    pub async fn an_unlinked_file_lives_while_open(p: Place) {
        let file = put(p.path("f"), b"alive").await;
        disk::remove_file(p.path("f")).await.unwrap();
        assert_eq!(file.read_at(0, 5).await.unwrap(), "alive");
        put(p.path("f"), b"other").await;
        assert_eq!(file.read_at(0, 5).await.unwrap(), "alive");
    }

    pub async fn replace_is_whole(p: Place) {
        disk::replace(p.path("f"), Bytes::from_static(b"a longer first version")).await.unwrap();
        disk::replace(p.path("f"), Bytes::from_static(b"second")).await.unwrap();
        assert_eq!(disk::read(p.path("f")).await.unwrap(), "second");
        assert_eq!(disk::read_dir(&p.dir).await.unwrap().len(), 1, "nothing temporary is left");
    }

    pub async fn lock_excludes(p: Place) {
        let held = DirLock::acquire(&p.dir).await.unwrap();
        assert_eq!(kind(DirLock::acquire(&p.dir)).await, ErrorKind::WouldBlock);
        drop(held);
        DirLock::acquire(&p.dir).await.unwrap();
        assert_eq!(kind(DirLock::acquire(p.path("no"))).await, ErrorKind::NotFound);
    }

    pub async fn sync_succeeds(p: Place) {
        let file = put(p.path("f"), b"durable").await;
        file.sync().await.unwrap();
        disk::sync_dir(&p.dir).await.unwrap();
        assert_eq!(kind(disk::sync_dir(p.path("no"))).await, ErrorKind::NotFound);
    }

    pub async fn deep_sync_order(p: Place) {
        let file = put(p.path("f"), b"0123456789").await;
        let syncs: Vec<_> = (0..4)
            .map(|n| {
                let file = file.clone();
                env::task::spawn(async move {
                    file.write_at(n * 2, Bytes::from_static(b"xy")).await.unwrap();
                    file.sync().await.unwrap();
                })
            })
            .collect();
        for sync in syncs {
            sync.await.unwrap();
        }
        assert_eq!(file.read_at(0, 10).await.unwrap(), "xyxyxyxy89");
    }
}
