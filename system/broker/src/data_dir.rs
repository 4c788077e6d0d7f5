//! The data directory: whose it is, in which format, and that nobody else uses it.
//!
//! ```text
//! meta.properties          who: written once, atomically, before anything else
//! lock                     held while a broker runs here
//! clean-shutdown           the broker epoch of a stop that synced everything; gone while a broker runs
//! __cluster_metadata-0/    the metadata log
//! <topic>-<partition>/     one directory a partition
//! ```
//! Nothing is written before it is clear that the directory is empty or ours, and free.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use env::disk::{self, DirLock};
use protocol::Uuid;

use crate::config::BrokerConfig;
use crate::failure::BrokerError;

/// The format of everything below the data directory.
pub const FORMAT: u32 = 1;

const META: &str = "meta.properties";
const META_TMP: &str = "meta.properties.tmp";
const LOCK: &str = "lock";
const CLEAN: &str = "clean-shutdown";

/// A data directory that is ours.
#[derive(Debug)]
pub struct DataDir {
    pub path: PathBuf,
    pub directory_id: Uuid,
    _lock: DirLock,
}

impl DataDir {
    /// Takes the directory, formatting it if it is new. `fresh_id` becomes its id then.
    pub async fn open(config: &BrokerConfig, fresh_id: Uuid) -> Result<Self, BrokerError> {
        let path = config.data_dir.clone();
        let storage = |what: &str, e: io::Error| BrokerError::storage(format!("{what} {}", path.display()), e);
        let existing = match disk::read(path.join(META)).await {
            Ok(bytes) => Some(Meta::parse(&path, &bytes)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(storage("reading", e)),
        };
        match &existing {
            Some(meta) => meta.check(&path, config)?,
            None => {
                check_unused(&path).await?;
                disk::create_dir_all(&path).await.map_err(|e| storage("creating", e))?;
            }
        }
        let lock = DirLock::acquire(&path).await.map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => BrokerError::Held { dir: path.clone() },
            _ => storage("locking", e),
        })?;
        let directory_id = match existing {
            Some(meta) => meta.directory_id,
            None => {
                let meta =
                    Meta { node_id: config.node_id, cluster_id: config.cluster_id.clone(), directory_id: fresh_id };
                disk::replace(path.join(META), meta.format()).await.map_err(|e| storage("writing", e))?;
                disk::sync_ancestors(&path).await.map_err(|e| storage("syncing", e))?;
                fresh_id
            }
        };
        Ok(Self { path, directory_id, _lock: lock })
    }

    /// The broker epoch that the stop before this start left, if it was clean. Asked once: from here on nothing is clean
    /// until [`DataDir::mark_clean`].
    pub async fn take_clean(&self) -> Result<Option<i64>, BrokerError> {
        let path = self.path.join(CLEAN);
        let storage = |e: io::Error| BrokerError::storage(path.display(), e);
        let bytes = match disk::read(&path).await {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(storage(e)),
        };
        disk::remove_file(&path).await.map_err(storage)?;
        disk::sync_dir(&self.path).await.map_err(storage)?;
        // A file that a crash cut short was never finished: the stop was not clean.
        Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().strip_suffix('.')?.parse().ok()))
    }

    /// Everything that this broker promised in `broker_epoch` is synced, and it writes nothing more.
    pub async fn mark_clean(&self, broker_epoch: i64) -> Result<(), BrokerError> {
        let path = self.path.join(CLEAN);
        let text = Bytes::from(format!("{broker_epoch}.\n"));
        disk::replace(&path, text).await.map_err(|e| BrokerError::storage(path.display(), e))
    }

    pub fn metadata_dir(&self) -> PathBuf {
        self.path.join("__cluster_metadata-0")
    }
}

/// A directory without `meta.properties` may hold only what a crash during formatting leaves.
async fn check_unused(path: &Path) -> Result<(), BrokerError> {
    let entries = match disk::read_dir(path).await {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(BrokerError::storage(format!("reading {}", path.display()), e)),
    };
    match entries.into_iter().find(|e| e.name != LOCK && e.name != META_TMP) {
        Some(entry) => Err(BrokerError::Foreign { dir: path.to_owned(), found: entry.name }),
        None => Ok(()),
    }
}

/// The contents of `meta.properties`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Meta {
    node_id: i32,
    cluster_id: String,
    directory_id: Uuid,
}

impl Meta {
    fn format(&self) -> Bytes {
        let text = format!(
            "version=1\nstreamproof.format={FORMAT}\ncluster.id={}\nnode.id={}\ndirectory.id={}\n",
            self.cluster_id,
            self.node_id,
            self.directory_id.simple(),
        );
        Bytes::from(text)
    }

    fn parse(dir: &Path, bytes: &[u8]) -> Result<Self, BrokerError> {
        let broken = |reason: String| BrokerError::Meta { dir: dir.to_owned(), reason };
        let text = std::str::from_utf8(bytes).map_err(|e| broken(e.to_string()))?;
        let mut fields = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (key, value) = line.split_once('=').ok_or_else(|| broken(format!("no '=' in {line:?}")))?;
            fields.insert(key.trim(), value.trim());
        }
        let field = |name: &str| fields.get(name).copied().ok_or_else(|| broken(format!("{name} is missing")));
        let version = |found: String| BrokerError::Version { dir: dir.to_owned(), found, expected: FORMAT };
        // First: everything else may mean something else in another format.
        match fields.get("streamproof.format").copied() {
            None => return Err(version("of another program".to_owned())),
            Some(found) if found != FORMAT.to_string() => return Err(version(found.to_owned())),
            Some(_) => {}
        }
        let node_id = field("node.id")?;
        let directory_id = field("directory.id")?;
        Ok(Self {
            node_id: node_id.parse().map_err(|_| broken(format!("node.id is {node_id:?}")))?,
            cluster_id: field("cluster.id")?.to_owned(),
            directory_id: Uuid::parse_str(directory_id)
                .map_err(|_| broken(format!("directory.id is {directory_id:?}")))?,
        })
    }

    fn check(&self, dir: &Path, config: &BrokerConfig) -> Result<(), BrokerError> {
        let other = |what, found: String, expected: String| BrokerError::Identity {
            dir: dir.to_owned(),
            what,
            found,
            expected,
        };
        if self.cluster_id != config.cluster_id {
            return Err(other("cluster", self.cluster_id.clone(), config.cluster_id.clone()));
        }
        if self.node_id != config.node_id {
            return Err(other("node", self.node_id.to_string(), config.node_id.to_string()));
        }
        Ok(())
    }
}
