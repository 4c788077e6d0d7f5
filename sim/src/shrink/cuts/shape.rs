//! Partitions and workers.

use scenarios::Plan;
use scenarios::plan::{NodeName, Role, Target, Trigger};

use super::super::search::Search;
use super::records::{for_each_batches, forget_missing_nodes, retain};

/// Fewer partitions of each topic: one without its records, or all records on the ones that are left.
pub fn partitions(search: &mut Search<'_>) {
    for topic in 0..search.best().topics.len() {
        while search.best().topics[topic].partitions > 1 {
            let last = search.best().topics[topic].partitions as i32 - 1;
            let alternatives: Vec<Fewer> = std::iter::once(Fewer::One)
                .chain((0..=last).rev().map(Fewer::Without))
                .chain([Fewer::Folded])
                .collect();
            let name = search.best().topics[topic].name.clone();
            let what = |fewer: &Fewer| match fewer {
                Fewer::One => format!("all records of {name} on one partition"),
                Fewer::Without(p) => format!("partition {p} of {name} with its records"),
                Fewer::Folded => format!("the records of {name}'s last partition go to the first"),
            };
            if !search.replace(&alternatives, what, |plan, fewer| fewer.of(plan, topic)) {
                break;
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Fewer {
    One,
    Without(i32),
    Folded,
}

impl Fewer {
    fn of(self, plan: &Plan, topic: usize) -> Plan {
        let partitions = plan.topics[topic].partitions;
        let name = plan.topics[topic].name.clone();
        // Several topics' records are told apart by their clients.
        let clients: Vec<u32> = plan.clients.iter().filter(|c| produces_to(c, &name)).map(|c| c.id).collect();
        let mut out = match self {
            Fewer::Without(p) => retain(plan, |client, r| !clients.contains(&client) || r.partition != p),
            Fewer::One | Fewer::Folded => plan.clone(),
        };
        for_each_batches(&mut out, |client, batches| {
            if clients.contains(&client) {
                for record in batches.iter_mut().flat_map(|b| &mut b.records) {
                    record.partition = match self {
                        Fewer::One => 0,
                        Fewer::Folded => record.partition % (partitions as i32 - 1),
                        Fewer::Without(p) => record.partition - i32::from(record.partition > p),
                    };
                }
            }
        });
        out.topics[topic].partitions = if matches!(self, Fewer::One) { 1 } else { partitions - 1 };
        forget_missing_nodes(&mut out);
        out
    }
}

fn produces_to(client: &scenarios::plan::Client, topic: &str) -> bool {
    matches!(&client.role, scenarios::plan::ClientRole::Producer(p) if p.topic == topic)
}

/// Fewer brokers: one alone, or three instead of five.
pub fn brokers(search: &mut Search<'_>) {
    let fewer: Vec<u32> = [1, 3].into_iter().filter(|n| *n < search.best().topology.brokers).collect();
    search.replace(&fewer, |n| format!("all brokers but {n}"), |plan, n| with_brokers(plan, *n));
}

fn with_brokers(plan: &Plan, brokers: u32) -> Plan {
    let mut plan = plan.clone();
    plan.topology.brokers = brokers;
    let knobs = &mut plan.knobs.broker;
    knobs.default_replication_factor = knobs.default_replication_factor.min(brokers);
    // As many may be missing as before, but one has to be there.
    knobs.min_insync_replicas = knobs.min_insync_replicas.min(brokers.div_ceil(2));
    for topic in &mut plan.topics {
        topic.replication_factor = topic.replication_factor.min(brokers);
        if brokers == 1 {
            topic.configs.remove("min.insync.replicas");
        }
    }
    forget_missing_nodes(&mut plan);
    plan
}

/// Fewer workers, down to two: any one of them goes, with the faults that name it; the rest move up.
pub fn workers(search: &mut Search<'_>) {
    while search.best().topology.workers > 2 {
        let all: Vec<u32> = (0..search.best().topology.workers).rev().collect();
        if !search.replace(&all, |w| format!("worker {w}"), |plan, w| without_worker(plan, *w)) {
            break;
        }
    }
}

fn without_worker(plan: &Plan, gone: u32) -> Plan {
    let mut plan = plan.clone();
    let last = NodeName::new(Role::Worker, plan.topology.workers - 1);
    // What is to go takes the last number, which then no longer exists.
    let renumber = |name: &mut NodeName| {
        if name.role == Role::Worker && name.number >= gone {
            name.number = if name.number == gone { last.number } else { name.number - 1 };
        }
    };
    for fault in &mut plan.faults {
        for target in fault.action.targets_mut() {
            if let Target::Node(name) = target {
                renumber(name);
            }
        }
        if let Trigger::CrashPoint(point) = &mut fault.trigger
            && let Target::Node(name) = &mut point.node
        {
            renumber(name);
        }
    }
    for link in &mut plan.knobs.world.links {
        renumber(&mut link.from);
        renumber(&mut link.to);
    }
    plan.topology.workers -= 1;
    forget_missing_nodes(&mut plan);
    plan
}
