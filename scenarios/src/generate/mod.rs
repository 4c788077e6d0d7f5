//! Building blocks of the scenarios: base plan, workloads, faults.
//!
//! Each concern draws from `seed::stream(workload seed, concern, ids)`, a stream of its own, so that a change in one
//! generator leaves what the others make as it was.

mod base;
mod event_time;
mod faults;
mod producers;

pub use base::{base, switch_off, topic, with_brokers, with_job};
pub use event_time::{EventTime, JobText, events};
pub use faults::{
    FaultSpace, Menu, broker_node, faults, lose_a_disk, persistence, side_of, some_transactional, strike,
    transactions_partition, transactions_partition_of, workload_partition,
};
pub use producers::{Mix, cluster, cluster_of, mixed_producers, readers};

use std::collections::BTreeSet;

use crate::plan::{Family, Plan};
use seed::Rng;

/// The fault families that may strike.
pub type Families = BTreeSet<Family>;

/// All of them.
pub fn all_families() -> Families {
    Family::ALL.into_iter().collect()
}

/// The stream of `concern` for this plan's workload.
pub fn stream(plan: &Plan, concern: &str, ids: &[u64]) -> Rng {
    seed::stream(plan.seeds.workload, concern, ids)
}

/// A value that cannot cancel out against others: 40 random bits. Uniqueness within a plan comes from the caller's set.
pub(crate) fn unique_value(rng: &mut Rng, taken: &mut BTreeSet<u64>) -> u64 {
    loop {
        let value = rng.range(0, (1 << 40) - 1);
        if taken.insert(value) {
            return value;
        }
    }
}
