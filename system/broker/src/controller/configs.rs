//! The settings a topic may be given: each is honoured, so a value that would be ignored is refused.

use std::collections::BTreeMap;

use protocol::ErrorCode;

use super::proposal::{ConfigOp, Refusal};
use crate::config::BrokerConfig;
use crate::log_settings::default_policy;

/// What values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Bool,
    /// 32 bits, at least this.
    Int(i64),
    /// 64 bits, at least this.
    Long(i64),
    /// 0 to 1.
    Share,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A list of some of these.
    ListOf(&'static [&'static str]),
}

/// One setting of topics.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// What holds for the topic of this name if it says nothing.
    pub default: fn(&BrokerConfig, &str) -> String,
    pub about: &'static str,
}

pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "cleanup.policy",
        kind: Kind::ListOf(&["compact", "delete"]),
        default: |_, topic| default_policy(topic).to_owned(),
        about: "What becomes of old segments: compacted, deleted by their age or the log's size, or both.",
    },
    Setting {
        name: "compression.type",
        kind: Kind::OneOf(&["producer"]),
        default: |_, _| "producer".to_owned(),
        about: "Batches are stored as the producer compressed them.",
    },
    Setting {
        name: "delete.retention.ms",
        kind: Kind::Long(0),
        default: |config, _| config.delete_retention_ms.to_string(),
        about: "How long a compacted log keeps tombstones and the last markers of transactions.",
    },
    Setting {
        name: "message.timestamp.type",
        kind: Kind::OneOf(&["CreateTime"]),
        default: |_, _| "CreateTime".to_owned(),
        about: "Records keep the producer's timestamps.",
    },
    Setting {
        name: "min.cleanable.dirty.ratio",
        kind: Kind::Share,
        default: |config, _| config.min_cleanable_dirty_ratio.to_string(),
        about: "The dirty share of a log from which on it is compacted.",
    },
    Setting {
        name: "min.compaction.lag.ms",
        kind: Kind::Long(0),
        default: |config, _| config.min_compaction_lag_ms.to_string(),
        about: "How long a record is not compacted.",
    },
    Setting {
        name: "min.insync.replicas",
        kind: Kind::Int(1),
        default: |config, _| config.min_insync_replicas.to_string(),
        about: "Fewest in-sync replicas with which acks=all is accepted.",
    },
    Setting {
        name: "retention.bytes",
        kind: Kind::Long(-1),
        default: |config, _| config.retention_bytes.to_string(),
        about: "Bytes of a partition beyond which its oldest segments go; -1 is no limit.",
    },
    Setting {
        name: "retention.ms",
        kind: Kind::Long(-1),
        default: |config, _| config.retention_ms.to_string(),
        about: "Age at which a segment goes; -1 is no limit.",
    },
    Setting {
        name: "segment.bytes",
        kind: Kind::Int(1024),
        default: |config, _| config.segment_bytes.min(i32::MAX as u32).to_string(),
        about: "Bytes at which a segment is closed and another begun.",
    },
    Setting {
        name: "unclean.leader.election.enable",
        kind: Kind::Bool,
        default: |_, _| "false".to_owned(),
        about: "Whether a replica that may lack acknowledged records leads when no other can.",
    },
];

pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// Whether the setting exists and takes the value.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    let setting = setting(name).ok_or_else(|| format!("unknown or unsupported setting {name}"))?;
    let fits = match setting.kind {
        Kind::Bool => matches!(value, "true" | "false"),
        Kind::Int(least) => value.parse::<i32>().is_ok_and(|v| i64::from(v) >= least),
        Kind::Long(least) => value.parse::<i64>().is_ok_and(|v| v >= least),
        Kind::Share => value.parse::<f64>().is_ok_and(|v| (0.0..=1.0).contains(&v)),
        Kind::OneOf(values) => values.contains(&value),
        Kind::ListOf(values) => list(value).all(|v| values.contains(&v)) && list(value).next().is_some(),
    };
    if fits { Ok(()) } else { Err(format!("{name}={value} is not supported, only {}", setting.kind)) }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool => f.write_str("true and false"),
            Self::Int(least) | Self::Long(least) => write!(f, "numbers from {least}"),
            Self::Share => f.write_str("numbers from 0 to 1"),
            Self::OneOf(values) | Self::ListOf(values) => f.write_str(&values.join(", ")),
        }
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|v| !v.is_empty())
}

/// The settings after the changes.
pub fn altered(
    current: &BTreeMap<String, String>,
    replace: bool,
    ops: &[(String, ConfigOp)],
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut next = if replace { BTreeMap::new() } else { current.clone() };
    for (name, op) in ops {
        let invalid = |message: String| Refusal::new(ErrorCode::INVALID_CONFIG, message);
        let setting = setting(name).ok_or_else(|| invalid(format!("unknown or unsupported setting {name}")))?;
        let value = match op {
            ConfigOp::Delete => {
                next.remove(name);
                continue;
            }
            ConfigOp::Set(value) => value.clone(),
            ConfigOp::Append(_) | ConfigOp::Subtract(_) if !matches!(setting.kind, Kind::ListOf(_)) => {
                return Err(invalid(format!("{name} is not a list")));
            }
            ConfigOp::Append(more) => {
                let mut values: Vec<&str> = next.get(name).map(|v| list(v).collect()).unwrap_or_default();
                let new: Vec<&str> = list(more).filter(|v| !values.contains(v)).collect();
                values.extend(new);
                values.join(",")
            }
            ConfigOp::Subtract(less) => {
                let out: Vec<&str> = list(less).collect();
                let values = next.get(name).map(|v| list(v).filter(|v| !out.contains(v)).collect::<Vec<_>>());
                values.unwrap_or_default().join(",")
            }
        };
        check(name, &value).map_err(invalid)?;
        next.insert(name.clone(), value);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_would_be_ignored_is_refused() {
        assert!(check("cleanup.policy", "delete").is_ok());
        assert!(check("cleanup.policy", "").is_err());
        assert!(check("min.insync.replicas", "2").is_ok());
        assert!(check("min.insync.replicas", "0").is_err());
        assert!(check("unclean.leader.election.enable", "yes").is_err());
        assert!(check("no.such", "1").is_err());
        assert!(check("cleanup.policy", "compact,delete").is_ok() && check("cleanup.policy", "keep").is_err());
        assert!(check("retention.ms", "-1").is_ok() && check("retention.ms", "-2").is_err());
        assert!(check("retention.bytes", "99999999999").is_ok() && check("segment.bytes", "99999999999").is_err());
        assert!(check("min.cleanable.dirty.ratio", "0.5").is_ok());
        for bad in ["1.1", "-0.1", "NaN", "half"] {
            assert!(check("min.cleanable.dirty.ratio", bad).is_err(), "{bad}");
        }
        for s in SETTINGS {
            for topic in ["t", "__consumer_offsets"] {
                assert!(check(s.name, &(s.default)(&BrokerConfig::default(), topic)).is_ok(), "{}", s.name);
            }
        }
    }

    #[test]
    fn incremental_changes_keep_the_rest_and_lists_grow_and_shrink() {
        let before = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
        let op = |name: &str, op| vec![(name.to_owned(), op)];
        let set = op("unclean.leader.election.enable", ConfigOp::Set("true".into()));
        assert_eq!(altered(&before, false, &set).unwrap().len(), 2);
        assert_eq!(altered(&before, true, &set).unwrap().len(), 1);
        assert!(altered(&before, false, &op("min.insync.replicas", ConfigOp::Delete)).unwrap().is_empty());
        assert!(altered(&before, false, &op("min.insync.replicas", ConfigOp::Append("3".into()))).is_err());
        let appended = altered(&before, true, &op("cleanup.policy", ConfigOp::Append("delete".into()))).unwrap();
        assert_eq!(appended["cleanup.policy"], "delete");
        assert!(altered(&appended, false, &op("cleanup.policy", ConfigOp::Subtract("delete".into()))).is_err());
    }
}
