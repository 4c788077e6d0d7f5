//! What a topic's settings say about the logs of its partitions: when segments roll, what is compacted and what retained.

use std::collections::BTreeMap;

use log::{CleanerConfig, RetentionConfig};

use crate::config::BrokerConfig;
use crate::internal_topics::is_internal;

/// Settings of a topic's logs, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSettings {
    /// `cleanup.policy` has `compact`.
    pub compact: bool,
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    pub segment_bytes: u32,
    pub cleaner: CleanerConfig,
    pub retention: RetentionConfig,
}

/// What holds for a topic that says nothing: coordinators keep their state in compacted topics.
pub(crate) fn default_policy(topic: &str) -> &'static str {
    if is_internal(topic) { "compact" } else { "delete" }
}

impl LogSettings {
    /// What the topic says, and the broker's defaults where it says nothing. Values were checked when they were set.
    pub fn of(topic: &str, configs: &BTreeMap<String, String>, broker: &BrokerConfig) -> Self {
        fn get<T: std::str::FromStr>(configs: &BTreeMap<String, String>, name: &str, default: T) -> T {
            configs.get(name).and_then(|v| v.parse().ok()).unwrap_or(default)
        }
        let limit = |name, default| u64::try_from(get::<i64>(configs, name, default)).ok();
        let policy = configs.get("cleanup.policy").map_or(default_policy(topic), String::as_str);
        let has = |what| policy.split(',').any(|p| p.trim() == what);
        Self {
            compact: has("compact"),
            delete: has("delete"),
            segment_bytes: get(configs, "segment.bytes", broker.segment_bytes).min(i32::MAX as u32),
            cleaner: CleanerConfig {
                min_cleanable_dirty_ratio: get(configs, "min.cleanable.dirty.ratio", broker.min_cleanable_dirty_ratio),
                delete_retention_ms: get(configs, "delete.retention.ms", broker.delete_retention_ms),
                min_compaction_lag_ms: get(configs, "min.compaction.lag.ms", broker.min_compaction_lag_ms),
                dedupe_buffer_bytes: broker.cleaner_dedupe_buffer_bytes,
            },
            retention: RetentionConfig {
                retention_ms: limit("retention.ms", broker.retention_ms),
                retention_bytes: limit("retention.bytes", broker.retention_bytes),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_overrides_the_broker_and_internal_ones_are_compacted() {
        let broker = BrokerConfig { retention_ms: 9, ..BrokerConfig::default() };
        let none = BTreeMap::new();
        let plain = LogSettings::of("t", &none, &broker);
        assert!(plain.delete && !plain.compact);
        assert_eq!(plain.retention, RetentionConfig { retention_ms: Some(9), retention_bytes: None });
        let internal = LogSettings::of("__consumer_offsets", &none, &broker);
        assert!(internal.compact && !internal.delete);
        let set = [
            ("cleanup.policy", "compact, delete"),
            ("segment.bytes", "4096"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("delete.retention.ms", "7"),
            ("min.compaction.lag.ms", "3"),
            ("retention.ms", "-1"),
            ("retention.bytes", "100"),
        ];
        let set = set.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let both = LogSettings::of("t", &set, &broker);
        assert!(both.compact && both.delete);
        assert_eq!((both.segment_bytes, both.cleaner.min_cleanable_dirty_ratio), (4096, 0.25));
        assert_eq!((both.cleaner.delete_retention_ms, both.cleaner.min_compaction_lag_ms), (7, 3));
        assert_eq!(both.retention, RetentionConfig { retention_ms: None, retention_bytes: Some(100) });
    }
}
