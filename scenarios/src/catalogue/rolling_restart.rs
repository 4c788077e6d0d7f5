//! An upgrade: one broker after the other is asked to stop and started again, round after round.
//!
//! A broker that is asked to stop lets its leaderships move first (controlled shutdown), and the next one may be asked
//! before it is back in sync.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{Families, FaultSpace, Menu, Mix, cluster, faults, stream, strike};
use crate::plan::{Action, Family, NodeName, Plan, Role, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "rolling_restart",
    story: "Producers write to three brokers that are restarted one after the other. \
            Each is asked to stop, as an operator would, sometimes before the one before is back; now and then one crashes on its way. \
            No acknowledged record is lost or doubled, and everybody is in sync in the end.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 2, transactional: 2, records: 150, partitions: 3, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    let mut rng = stream(&plan, "faults", &[Family::Process as u64]);
    let mut ms = rng.range(300, 1_500);
    let pause = *rng.choose(&[400, 1_000, 2_000]);
    let mut number = rng.range(0, 2) as u32;
    while ms < 10_000 {
        let node = Target::Node(NodeName::new(Role::Broker, number % 3));
        strike(&mut plan, Family::Process, Trigger::At { ms }, Action::Stop { node });
        ms += rng.range(pause, 3 * pause);
        number += 1;
    }
    let space = FaultSpace { from_ms: 500, to_ms: 9_000 };
    faults(&mut plan, space, Menu { crash_points: (0, 1), net: (0, 1), ..Menu::default() });
    plan
}
