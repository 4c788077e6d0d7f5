//! What the coordinator must never forget, in one small file: the newest generation, the end offsets once they are
//! fixed, and whether the job is done. Replaced atomically and durably before any of it is used.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::CoordinatorError;
use crate::control::Generation;

const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    pub version: u32,
    pub job: String,
    pub generation: Generation,
    /// Exclusive, by partition.
    pub end_offsets: Option<Vec<(i32, i64)>>,
    pub drained: bool,
}

#[derive(Debug)]
pub(super) struct MetaFile {
    path: PathBuf,
    pub meta: Meta,
}

impl MetaFile {
    /// Reads the file, or starts a new one in memory.
    pub async fn open(path: PathBuf, job: &str) -> Result<Self, CoordinatorError> {
        let fail = |why: String| CoordinatorError::Data { path: path.clone(), why };
        let meta = if env::disk::exists(&path).await.map_err(|e| fail(e.to_string()))? {
            let bytes = env::disk::read(&path).await.map_err(|e| fail(e.to_string()))?;
            #[derive(Deserialize)]
            struct Version {
                version: u32,
            }
            let found: Version = serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
            if found.version != VERSION {
                return Err(fail(format!("it has version {}, this build reads {VERSION}", found.version)));
            }
            let meta: Meta = serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
            if meta.job != job {
                return Err(fail(format!("it belongs to job {:?}, not {job:?}", meta.job)));
            }
            meta
        } else {
            Meta { version: VERSION, job: job.to_owned(), generation: 0, end_offsets: None, drained: false }
        };
        Ok(Self { path, meta })
    }

    /// Makes `meta` durable, then takes it over.
    pub async fn save(&mut self, meta: Meta) -> Result<(), CoordinatorError> {
        let fail = |why: String| CoordinatorError::Data { path: self.path.clone(), why };
        let bytes = serde_json::to_vec(&meta).map_err(|e| fail(e.to_string()))?;
        env::disk::replace(&self.path, bytes.into()).await.map_err(|e| fail(e.to_string()))?;
        self.meta = meta;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_and_guards_its_job_and_version() {
        let dir = tempfile::tempdir().unwrap();
        env::node::run_real(async {
            let path = dir.path().join("coordinator.json");
            let mut file = MetaFile::open(path.clone(), "j").await.unwrap();
            let meta = Meta { generation: 7, end_offsets: Some(vec![(0, 5)]), ..file.meta.clone() };
            file.save(meta.clone()).await.unwrap();
            assert_eq!(MetaFile::open(path.clone(), "j").await.unwrap().meta, meta);
            assert!(MetaFile::open(path.clone(), "other").await.is_err());
            env::disk::replace(&path, r#"{"version":9,"new":1}"#.into()).await.unwrap();
            let error = MetaFile::open(path, "j").await.unwrap_err().to_string();
            assert!(error.contains("version 9"), "{error}");
        })
        .unwrap();
    }
}
