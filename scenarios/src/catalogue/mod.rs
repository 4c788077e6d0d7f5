//! The list of scenarios. Each file tells its story, builds its plans and names what judges them.

mod canary_at_least_once;
mod canary_page_cache;
mod checkpoint_crash;
mod compaction;
mod coordinator_crash;
mod correlated_power_loss;
mod crash_restart;
mod duplicates;
mod flights;
mod hanging_transaction;
mod idle_partition;
mod late_messages;
mod leader_failover;
mod network_partition;
mod power_loss;
mod rebalance_storm;
mod reordering;
mod rolling_restart;
mod smoke;
mod swarm;
mod truncation;
mod unclean_election;
mod zombie_producer;

pub use flights::{Event, Input, generate as generate_from_events};

use crate::generate::{Families, all_families};
use crate::plan::{Plan, Topic};

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    /// Three sentences.
    pub story: &'static str,
    /// Names of the invariants that judge it.
    pub properties: &'static [&'static str],
    /// For a canary: the property that must be violated in at least one of its seeds.
    pub must_fail: Option<&'static str>,
    /// Anomalies that do not count, with the reason.
    pub allowed: &'static [(&'static str, &'static str)],
    /// `sometimes!` labels that a sweep must reach.
    pub rare: &'static [&'static str],
    /// `None` if the plan also needs a job and events from the user: see [`generate_from_events`].
    pub generate: Option<fn(u64, &Families) -> Plan>,
}

/// Judge the broker alone.
pub const BROKER_PROPERTIES: &[&str] = &[
    "acked-durable",
    "failed-absent",
    "no-duplicate",
    "producer-order",
    "high-watermark-monotonic",
    "last-stable-offset-monotonic",
    "transaction-atomicity",
    "decided-once",
    "no-aborted-read",
    "read-equals-disk",
];

const REPLICATION: &[&str] = &["logs-agree", "one-leader", "in-sync-holds", "metadata-kept", "transactions-end"];

const PROCESSOR: &[&str] = &["window-exactly-once", "idleness", "conservation", "watermark-monotonic", "convergence"];

/// Of groups, and the anomalies of clients that produce and consume.
const GROUPS: &[&str] = &[
    "copied-once",
    "single-owner",
    "offsets-kept",
    "lost-write",
    "duplicate",
    "unseen",
    "inconsistent-offsets",
    "G1a",
    "G1c",
    "precommitted-read",
    "poll-skip",
    "nonmonotonic-poll",
    "int-poll-skip",
    "int-nonmonotonic-poll",
    "nonmonotonic-send",
    "int-nonmonotonic-send",
];

/// Judge brokers that replicate, under clients' writes.
pub const CLUSTER_PROPERTIES: &[&str] =
    &joined::<{ BROKER_PROPERTIES.len() + REPLICATION.len() }>(BROKER_PROPERTIES, REPLICATION);

/// Judge them with consumer groups.
pub const GROUP_PROPERTIES: &[&str] =
    &joined::<{ CLUSTER_PROPERTIES.len() + GROUPS.len() }>(CLUSTER_PROPERTIES, GROUPS);

/// Judge brokers and processor.
pub const ALL_PROPERTIES: &[&str] =
    &joined::<{ CLUSTER_PROPERTIES.len() + PROCESSOR.len() }>(CLUSTER_PROPERTIES, PROCESSOR);

/// Judge everything.
pub const ALL_AND_GROUP_PROPERTIES: &[&str] =
    &joined::<{ ALL_PROPERTIES.len() + GROUPS.len() }>(ALL_PROPERTIES, GROUPS);

/// What still holds where a topic prefers a leader to its records: neither durability nor order over an unclean election
/// is promised.
pub const UNCLEAN_PROPERTIES: &[&str] = &["one-leader", "metadata-kept", "read-equals-disk", "logs-agree"];

/// The topic setting under which committed records may be lost.
const UNCLEAN: &str = "unclean.leader.election.enable";

/// The properties that judge this plan: those of its scenario, as far as its topics' settings promise them. Of compacted
/// topics, the anomalies of clients are not: they take a log for whole.
pub fn properties_of(plan: &Plan) -> Vec<&'static str> {
    let all = find(&plan.scenario).map_or(&[][..], |e| e.properties);
    let promised: &[&str] = match plan {
        _ if may_lose_records(plan) => UNCLEAN_PROPERTIES,
        _ if plan.topics.iter().any(Topic::is_compacted) => CLUSTER_PROPERTIES,
        _ => all,
    };
    all.iter().copied().filter(|name| promised.contains(name)).collect()
}

/// A topic allows a leader that lacks committed records.
pub fn may_lose_records(plan: &Plan) -> bool {
    plan.topics.iter().any(|t| t.configs.get(UNCLEAN).is_some_and(|v| v == "true"))
}

/// The names of `a`, then those of `b`; `N` is how many.
const fn joined<const N: usize>(a: &[&'static str], b: &[&'static str]) -> [&'static str; N] {
    assert!(a.len() + b.len() == N);
    let mut all = [""; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < a.len() { a[i] } else { b[i - a.len()] };
        i += 1;
    }
    all
}

/// All scenarios, in the order in which they are listed.
pub fn list() -> &'static [Entry] {
    &[
        smoke::ENTRY,
        crash_restart::ENTRY,
        power_loss::ENTRY,
        duplicates::ENTRY,
        reordering::ENTRY,
        idle_partition::ENTRY,
        checkpoint_crash::ENTRY,
        leader_failover::ENTRY,
        network_partition::ENTRY,
        rolling_restart::ENTRY,
        correlated_power_loss::ENTRY,
        truncation::ENTRY,
        unclean_election::ENTRY,
        compaction::ENTRY,
        coordinator_crash::ENTRY,
        zombie_producer::ENTRY,
        hanging_transaction::ENTRY,
        late_messages::ENTRY,
        rebalance_storm::ENTRY,
        swarm::ENTRY,
        flights::ENTRY,
        flights::JOB,
        canary_page_cache::ENTRY,
        canary_at_least_once::ENTRY,
    ]
}

pub fn find(name: &str) -> Option<&'static Entry> {
    list().iter().find(|e| e.name == name)
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    #[error("unknown scenario `{0}`")]
    Unknown(String),
    #[error("scenario `{0}` needs a job and its events: give --job and --events")]
    NeedsEvents(&'static str),
}

/// The plan of `seed`: the same for ever within one version of the generators.
///
/// # Errors
/// An unknown scenario, or one that is made from a user's job and events.
pub fn generate(scenario: &str, seed: u64) -> Result<Plan, GenerateError> {
    generate_with(scenario, seed, &all_families())
}

/// The same with only some fault families (`--faults`). A canary keeps those that it has to fail by: it judges the harness,
/// whatever faults are asked for.
///
/// # Errors
/// As [`generate`].
pub fn generate_with(scenario: &str, seed: u64, families: &Families) -> Result<Plan, GenerateError> {
    let entry = find(scenario).ok_or_else(|| GenerateError::Unknown(scenario.to_owned()))?;
    let generate = entry.generate.ok_or(GenerateError::NeedsEvents(entry.name))?;
    let all = all_families();
    let plan = generate(seed, if entry.must_fail.is_some() { &all } else { families });
    debug_assert_eq!(plan.validate(), Ok(()), "scenario {scenario} seed {seed} made an invalid plan");
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generate_from_events;
    use crate::plan::{Family, Plan};

    const JOB: &str = r#"
name = "delays"
[source]
topic = "flights"
format = "json"
key = "k"
event_time = "t"
[watermark]
out_of_orderness = "2h"
[window]
type = "tumbling"
size = "1h"
[aggregate]
functions = ["count"]
[sink]
topic = "hourly"
late_topic = "late"
dlq_topic = "dlq"
"#;

    fn plans() -> impl Iterator<Item = Plan> {
        list().iter().filter_map(|e| e.generate).flat_map(|g| (0..30).map(move |s| g(s, &all_families())))
    }

    #[test]
    fn generated_plans_are_valid_and_survive_json() {
        for plan in plans() {
            assert_eq!(plan.validate(), Ok(()), "{} seed {}", plan.scenario, plan.seed);
            assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        }
    }

    #[test]
    fn a_seed_makes_one_plan_and_seeds_make_many() {
        for entry in list() {
            let Some(generate) = entry.generate else { continue };
            let generate = |seed| generate(seed, &all_families());
            assert_eq!(generate(3), generate(3));
            let worlds: BTreeSet<_> = (0..100).map(|s| generate(s).seeds.world).collect();
            assert_eq!(worlds.len(), 100);
        }
    }

    #[test]
    fn one_disk_is_lost_at_most() {
        let lost = |p: &Plan| p.faults.iter().filter(|f| f.action.kind() == "wipe").count();
        let mut plan = (0..).map(|s| generate("leader_failover", s).unwrap()).find(|p| lost(p) == 1).unwrap();
        crate::generate::lose_a_disk(&mut plan, crate::generate::FaultSpace { from_ms: 500, to_ms: 9_000 });
        assert_eq!((lost(&plan), plan.validate()), (1, Ok(())));
    }

    #[test]
    fn values_are_unique() {
        let plan = generate("crash_restart", 1).unwrap();
        let values: BTreeSet<_> = plan.records().map(|(_, r)| r.value.bytes()).collect();
        assert_eq!(values.len(), plan.records().count());
    }

    /// Each family is off in at least a fifth of 2,000 seeds of swarm, and on in at least half.
    #[test]
    fn swarm_switches_each_family_off() {
        let mut off = std::collections::BTreeMap::<Family, u32>::new();
        for seed in 0..2_000 {
            for family in generate("swarm", seed).unwrap().families_off {
                *off.entry(family).or_default() += 1;
            }
        }
        assert_eq!(off.len(), Family::ALL.len());
        assert!(off.values().all(|n| (400..=1_000).contains(n)), "of 2,000 seeds they are off in {off:?}");
    }

    /// Switching a family off leaves the faults of the others as they were.
    #[test]
    fn families_do_not_disturb_each_other() {
        let plan = (0..).map(|s| generate("swarm", s).unwrap()).find(|p| p.families_off.is_empty()).unwrap();
        let mut without = plan.clone();
        without.faults.clear();
        without.families_off = vec![Family::Net];
        let menu = crate::generate::Menu {
            net: (1, 3),
            disk: (1, 2),
            clock: (1, 2),
            process: (1, 3),
            crash_points: (1, 3),
            duplicates: (1, 3),
            power: None,
            power_at_crash_points: true,
        };
        crate::generate::faults(&mut without, crate::generate::FaultSpace { from_ms: 1_500, to_ms: 14_000 }, menu);
        let strip = |p: &Plan| -> Vec<_> {
            p.faults.iter().filter(|f| f.family != Family::Net).map(|f| (f.trigger.clone(), f.action.clone())).collect()
        };
        assert_eq!(strip(&without), strip(&plan));
    }

    #[test]
    fn unknown_fields_and_versions_are_refused() {
        let plan = generate("smoke", 0).unwrap();
        let text = plan.to_json();
        let with_extra = text.replacen('{', "{\"colour\": 1,", 1);
        assert!(Plan::from_json(&with_extra).unwrap_err().to_string().contains("colour"));
        let newer = text.replacen("\"version\": 2", "\"version\": 3", 1);
        assert!(matches!(Plan::from_json(&newer), Err(crate::PlanError::Version { found: 3, .. })));
        let without = text.replacen("\"schedule\": \"uniform\",", "", 1);
        assert!(Plan::from_json(&without).is_err(), "a knob left out must not be defaulted");
    }

    /// A plan of the first release, kept as it was written.
    #[test]
    fn plans_of_version_1_are_read() {
        let text = include_str!("../../../tests/regressions/abandoned-registration-of-a-worker.json");
        assert!(text.contains("\"version\": 1"));
        let plan = Plan::from_json(text).unwrap();
        assert_eq!((plan.version, plan.topics[0].replication_factor), (crate::plan::VERSION, 1));
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    }

    #[test]
    fn stories_and_names() {
        let names: BTreeSet<_> = list().iter().map(|e| e.name).collect();
        assert_eq!(names.len(), list().len());
        for entry in list() {
            assert_eq!(entry.story.matches(". ").count() + 1, 3, "{}: a story is three sentences", entry.name);
            assert!(!entry.properties.is_empty());
        }
    }

    #[test]
    fn plans_from_events() {
        let event = |i: i32| crate::catalogue::Event { partition: i % 3, key: None, value: vec![0xff, i as u8] };
        let events: Vec<_> = (0..1000).map(event).collect();
        let input = Input { toml: JOB, topic: "flights", partitions: 3, events: &events };
        let plan = generate_from_events("flights", 4, &all_families(), &input);
        assert_eq!(plan.records().count(), 1000);
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    }
}
