//! The data directory of `serve`: whose it is, of which version, of which job, and that nobody else uses it.
//!
//! ```text
//! DATA/streamproof.json   version, job and number of brokers, written once, before anything else
//!     /lock               held while a process serves from here
//!     /broker/            the broker's own directory, with a format of its own; /broker-0/, /broker-1/… of several
//!     /coordinator/       checkpoints, generations, end offsets
//! ```
//! Nothing is written before it is clear that the directory is empty or ours, of this version, of this job, and free.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use models::JobSpec;
use serde::{Deserialize, Serialize};

/// Version of the layout above. Version 1 knew one broker only, and is read still.
pub const VERSION: u32 = 2;

const HEADER: &str = "streamproof.json";
const LOCK: &str = "lock";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    /// The job in its printed form; none if only a broker runs here.
    job: Option<String>,
    /// Brokers that keep their data here.
    #[serde(default = "one")]
    brokers: usize,
}

const fn one() -> usize {
    1
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// # Errors
    /// One sentence for people. The directory is as it was then.
    pub fn open(path: &Path, job: Option<&JobSpec>, brokers: usize) -> Result<Self, String> {
        let shown = path.display();
        let header = Header { version: VERSION, job: job.map(JobSpec::to_toml), brokers };
        let have = match fs::read_to_string(path.join(HEADER)) {
            Ok(text) => Some(parse(path, &text)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(format!("data directory {shown}: {HEADER}: {e}")),
        };
        match &have {
            Some(have) if have.job != header.job => {
                return Err(format!(
                    "data directory {shown} belongs to {}, not to {}: give another --data",
                    owner(have.job.as_deref()),
                    owner(header.job.as_deref())
                ));
            }
            Some(have) if have.brokers != brokers => {
                return Err(format!(
                    "data directory {shown} is that of a cluster of {}, not {brokers}: give another --data",
                    have.brokers
                ));
            }
            Some(_) => {}
            None => check_unused(path)?,
        }
        fs::create_dir_all(path).map_err(|e| format!("data directory {shown}: {e}"))?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK));
        let lock = lock.map_err(|e| format!("data directory {shown}: {LOCK}: {e}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("data directory {shown} is held by another process"));
            }
            Err(TryLockError::Error(e)) => return Err(format!("data directory {shown}: {LOCK}: {e}")),
        }
        if have.is_none() {
            write_header(path, &header).map_err(|e| format!("data directory {shown}: {HEADER}: {e}"))?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn broker(&self) -> PathBuf {
        self.path.join("broker")
    }

    /// Of one of several.
    pub fn broker_of(&self, id: i32) -> PathBuf {
        self.path.join(format!("broker-{id}"))
    }

    pub fn coordinator(&self) -> PathBuf {
        self.path.join("coordinator")
    }
}

fn parse(path: &Path, text: &str) -> Result<Header, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let shown = path.display();
    let broken = |e: serde_json::Error| format!("data directory {shown}: {HEADER} is broken: {e}");
    // First: everything else may mean something else in another version.
    let found = serde_json::from_str::<Versioned>(text).map_err(broken)?.version;
    if !(1..=VERSION).contains(&found) {
        return Err(format!("data directory {shown} has version {found}, this program reads versions 1 to {VERSION}"));
    }
    serde_json::from_str(text).map_err(broken)
}

fn owner(job: Option<&str>) -> String {
    let name = job.and_then(|toml| JobSpec::parse(toml, HEADER).ok()).map(|job| job.name);
    match (name, job) {
        (Some(name), _) => format!("job {name} as it was written"),
        (None, Some(_)) => "another job".into(),
        (None, None) => "a broker without a job".into(),
    }
}

/// A directory without a header may hold only what a crash before the header leaves.
fn check_unused(path: &Path) -> Result<(), String> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("data directory {}: {e}", path.display())),
    };
    let stranger = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name != LOCK && *name != temporary());
    match stranger {
        Some(name) => {
            Err(format!("data directory {} is not empty and not streamproof's: {name} is in it", path.display()))
        }
        None => Ok(()),
    }
}

fn temporary() -> String {
    format!("{HEADER}.tmp")
}

fn write_header(path: &Path, header: &Header) -> io::Result<()> {
    let tmp = path.join(temporary());
    let mut file = File::create(&tmp)?;
    file.write_all((serde_json::to_string_pretty(header)? + "\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&tmp, path.join(HEADER))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = include_str!("../../../examples/flights/job-a.toml");

    fn job() -> JobSpec {
        JobSpec::parse(JOB, "job.toml").unwrap()
    }

    #[test]
    fn is_ours_again_after_it_was_let_go() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b");
        drop(DataDir::open(&path, Some(&job()), 1).unwrap());
        let held = DataDir::open(&path, Some(&job()), 1).unwrap();
        let error = DataDir::open(&path, Some(&job()), 1).unwrap_err();
        assert_eq!(error, format!("data directory {} is held by another process", path.display()));
        drop(held);
    }

    #[test]
    fn the_first_version_is_read_as_one_broker() {
        let tmp = tempfile::tempdir().unwrap();
        let header = serde_json::json!({ "version": 1, "job": null });
        fs::write(tmp.path().join(HEADER), header.to_string()).unwrap();
        drop(DataDir::open(tmp.path(), None, 1).unwrap());
        DataDir::open(tmp.path(), None, 3).unwrap_err();
    }

    #[test]
    fn refuses_what_is_not_ours_and_touches_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path();
        fs::write(path.join("precious.txt"), "x").unwrap();
        let error = DataDir::open(path, None, 1).unwrap_err();
        assert!(error.ends_with("is not empty and not streamproof's: precious.txt is in it"), "{error}");
        assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    }

    #[test]
    fn refuses_another_version_and_another_job() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("d");
        drop(DataDir::open(&path, Some(&job()), 1).unwrap());
        let other = JobSpec { name: "other".into(), ..job() };
        let error = DataDir::open(&path, Some(&other), 1).unwrap_err();
        assert!(error.contains("belongs to job departure-delays as it was written, not to job other"), "{error}");
        let error = DataDir::open(&path, Some(&job()), 3).unwrap_err();
        assert!(error.ends_with("is that of a cluster of 1, not 3: give another --data"), "{error}");
        let header = path.join(HEADER);
        let text = fs::read_to_string(&header).unwrap().replace("\"version\": 2", "\"version\": 7");
        fs::write(&header, &text).unwrap();
        let error = DataDir::open(&path, Some(&job()), 1).unwrap_err();
        assert!(error.ends_with("has version 7, this program reads versions 1 to 2"), "{error}");
        assert_eq!(fs::read_to_string(&header).unwrap(), text);
    }
}
