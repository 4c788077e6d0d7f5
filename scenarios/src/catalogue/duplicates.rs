//! Replies are lost and requests arrive twice.
//!
//! The interleaving that bites: (1) a produce request is appended; (2) its reply is lost; (3) the client gives up the
//! connection and repeats on a new one; (4) the bytes of the old connection arrive after the repetition.

use super::{BROKER_PROPERTIES, Entry};
use crate::generate::{Families, FaultSpace, Menu, Mix, base, faults, mixed_producers, readers};
use crate::plan::Plan;

pub const ENTRY: Entry = Entry {
    name: "duplicates",
    story: "Producers write while the broker's replies are lost and connections are given up. \
            Clients repeat their requests, and bytes of abandoned connections arrive after the repetition. \
            Every record is in the log once, in the producer's order, and each transaction ends as its client was told.",
    properties: BROKER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &["a batch of unknown outcome is acknowledged on retry", "client repeats a call whose outcome is unknown"],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    mixed_producers(&mut plan, Mix { idempotent: 2, transactional: 2, records: 150, partitions: 3, active_ms: 9_000 });
    readers(&mut plan, "events");
    faults(
        &mut plan,
        FaultSpace { from_ms: 300, to_ms: 8_500 },
        Menu { net: (1, 4), duplicates: (3, 8), process: (0, 1), ..Menu::default() },
    );
    plan
}
