//! The same where the topic prefers a leader to its records: `unclean.leader.election.enable`.
//!
//! Acknowledged records may be lost then, and the high watermark may fall; what must hold is that the copies agree in the
//! end, that each epoch has one leader, and that clients and brokers come through it.

use super::{Entry, UNCLEAN, UNCLEAN_PROPERTIES};
use crate::generate::{Families, Mix, cluster, stream, strike, workload_partition};
use crate::plan::{Action, Family, Plan, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "unclean_election",
    story: "A topic allows that a replica which lacks acknowledged records may lead. \
            Leaders are cut off, in-sync sets shrink to one, that one dies, and another takes over. \
            Records may be lost, but each epoch has one leader, metadata is kept, and every log is what a reader gets.",
    properties: UNCLEAN_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 3, transactional: 0, records: 150, partitions: 4, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    let configs = &mut plan.topics[0].configs;
    configs.insert(UNCLEAN.into(), "true".into());
    configs.insert("min.insync.replicas".into(), "1".into());
    // A leader that needs nobody seldom has a follower cut its log.
    super::truncation::diverge_and_strike(&mut plan, 0);
    let mut rng = stream(&plan, "faults", &[Family::Process as u64]);
    for _ in 0..rng.range(1, 3) {
        let ms = rng.range(1_000, 8_000);
        let partition = workload_partition(&plan, &mut rng);
        let long = |rng: &mut seed::Rng| rng.range(3_000, 6_000);
        for (after, node) in [(0, Target::Follower(partition)), (100, Target::Follower(partition))] {
            let action = Action::Pause { node, for_ms: long(&mut rng) };
            strike(&mut plan, Family::Process, Trigger::At { ms: ms + after }, action);
        }
        let ms = ms + rng.range(2_000, 3_500);
        let action = Action::Crash { node: Target::Leader(partition), restart_after_ms: long(&mut rng) };
        strike(&mut plan, Family::Process, Trigger::At { ms }, action);
    }
    plan
}
