//! Plans of earlier versions, as what they meant. What a version did not say yet had one meaning, written out here.

use serde_json::{Value, json};

/// Version 1 had one broker, or several that did not replicate: one copy of everything, and the broker's own defaults.
pub(super) fn from_1(mut plan: Value) -> Value {
    let add = |to: Option<&mut Value>, name: &str, value: Value| {
        if let Some(Value::Object(fields)) = to {
            fields.entry(name).or_insert(value);
        }
    };
    for (name, value) in [
        ("default_replication_factor", 1),
        ("min_insync_replicas", 1),
        ("quorum_election_timeout_ms", 1_000),
        ("quorum_fetch_timeout_ms", 2_000),
        ("session_timeout_ms", 9_000),
        ("heartbeat_interval_ms", 2_000),
        ("replica_lag_max_ms", 30_000),
        ("leader_rebalance_ms", 300_000),
        ("group_session_timeout_ms", 45_000),
        ("group_heartbeat_interval_ms", 5_000),
        ("cleaner_interval_ms", 15_000),
        ("retention_check_interval_ms", 300_000),
    ] {
        add(plan.pointer_mut("/knobs/broker"), name, json!(value));
    }
    for topic in plan.pointer_mut("/topics").and_then(Value::as_array_mut).into_iter().flatten() {
        add(Some(&mut *topic), "replication_factor", json!(1));
        add(Some(topic), "configs", json!({}));
    }
    plan["version"] = json!(2);
    plan
}
