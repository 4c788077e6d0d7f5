//! Producers write while the broker's machine loses power.
//!
//! What was not synced is kept, lost or torn at a sector, in order or as a subset; directory entries that were not synced
//! vanish. With `flush=fsync` an acknowledgement is a promise over all of this.

use super::{BROKER_PROPERTIES, Entry};
use crate::generate::{Families, FaultSpace, Menu, Mix, base, faults, mixed_producers, readers};
use crate::plan::{Plan, Role};

pub const ENTRY: Entry = Entry {
    name: "power_loss",
    story: "Producers write to one broker that syncs before it acknowledges. \
            The machine loses power several times, and unsynced data is kept, lost or torn at a sector. \
            Recovery cuts the torn tail and nothing else: every acknowledged record is still there, once.",
    properties: BROKER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[
        "a batch of unknown outcome is acknowledged on retry",
        "a decided transaction is finished after a restart",
        "client repeats a call whose outcome is unknown",
        "EndTxn is repeated after a lost answer",
    ],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    mixed_producers(&mut plan, Mix { idempotent: 2, transactional: 2, records: 150, partitions: 3, active_ms: 9_000 });
    readers(&mut plan, "events");
    faults(
        &mut plan,
        FaultSpace { from_ms: 300, to_ms: 8_500 },
        Menu {
            process: (2, 4),
            disk: (0, 2),
            crash_points: (1, 3),
            power: Some(Role::Broker),
            power_at_crash_points: true,
            ..Menu::default()
        },
    );
    plan
}
