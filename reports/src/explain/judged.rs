//! Which decisions judge a record: a Judge names a range of offsets of one key group, and records of others lie between.

use history::{Decision, DecisionEntry, History};
use models::partition::key_group;

/// Number of key groups of the job, as its tasks opened them; 0 if none is known.
pub fn key_groups(history: &History) -> u32 {
    let groups = |d: &DecisionEntry| match &d.decision {
        Decision::Open { key_groups, .. } => key_groups.iter().map(|(group, _)| group + 1).max(),
        _ => None,
    };
    history.decisions.iter().filter_map(groups).max().unwrap_or(0)
}

/// Whether the decision judges the record of that key.
pub fn judges(decision: &Decision, split: i32, offset: i64, key: &str, groups: u32) -> bool {
    match decision {
        Decision::Judge { partition, offsets, key_group: group } => {
            *partition == split
                && (offsets[0]..=offsets[1]).contains(&offset)
                && (groups == 0 || key_group(key.as_bytes(), groups) == *group)
        }
        _ => false,
    }
}
