//! Producers write while the broker's process dies and comes back.
//!
//! The page cache survives a process crash, so nothing written may be missing afterwards, synced or not; producer state,
//! transactions and the metadata log must be rebuilt from the log alone.

use super::{BROKER_PROPERTIES, Entry};
use crate::generate::{Families, FaultSpace, Menu, Mix, base, faults, mixed_producers, readers};
use crate::plan::Plan;

pub const ENTRY: Entry = Entry {
    name: "crash_restart",
    story: "Idempotent and transactional producers write to one broker while readers follow. \
            The broker's process is killed and started again several times, also at the worst moments of an append or a commit. \
            Everything acknowledged is still there, once and in order, and no transaction is half visible.",
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
        Menu { process: (2, 4), crash_points: (1, 4), ..Menu::default() },
    );
    plan
}
