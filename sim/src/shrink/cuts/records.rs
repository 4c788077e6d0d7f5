//! The workload: whole clients, batches in time order, keys, single records.
//!
//! What is left keeps its numbers (`op.n`), times and values: a record of the shrunk plan is found in the first one.

use std::collections::BTreeSet;

use scenarios::Plan;
use scenarios::plan::{Action, Batch, ClientRole, NodeName, Payload, Record, Role, Target, TopicRef, Trigger};

use super::super::search::Search;

/// Above this many records, single ones are not worth a run each: batches and time go first.
const MAX_SINGLES: usize = 300;

/// Clients, with all they do and all that is done to them.
pub fn clients(search: &mut Search<'_>) {
    let ids: Vec<u32> = search.best().clients.iter().map(|c| c.id).collect();
    search.leave_out(
        "client",
        ids,
        |id| format!("client-{id}"),
        |plan, keep| {
            let mut plan = plan.clone();
            plan.clients.retain(|c| keep.contains(&c.id));
            forget_missing_nodes(&mut plan);
            plan
        },
    );
}

/// Batches of all producers, by time.
pub fn batches(search: &mut Search<'_>) {
    let mut all: Vec<(u64, Id)> = Vec::new();
    for (client, batch) in producers(search.best()) {
        all.extend(batch.records.first().map(|r| (batch.at_ms, (client, r.n))));
    }
    all.sort_unstable();
    let ids = all.into_iter().map(|(_, id)| id).collect();
    search.leave_out(
        "batch",
        ids,
        |id| format!("the batch from {}", shown(id)),
        |plan, keep| {
            let keep: BTreeSet<Id> = keep.iter().copied().collect();
            let mut plan = plan.clone();
            for_each_batches(&mut plan, |client, batches| {
                batches.retain(|b| b.records.first().is_some_and(|r| keep.contains(&(client, r.n))));
            });
            plan
        },
    );
}

pub fn keys(search: &mut Search<'_>) {
    let mut keys: Vec<Option<Payload>> = Vec::new();
    for (_, record) in search.best().records() {
        if !keys.contains(&record.key) {
            keys.push(record.key.clone());
        }
    }
    // One key is all records, and batches have seen to that.
    if keys.len() > 1 {
        let name = |key: &Option<Payload>| match key {
            Some(Payload::Text(key)) => format!("records of key `{key}`"),
            Some(Payload::Hex(key)) => format!("records of key 0x{}", key.hex),
            None => "records without a key".into(),
        };
        search.leave_out("key", keys, name, |plan, keep| retain(plan, |_, record| keep.contains(&record.key)));
    }
}

pub fn each(search: &mut Search<'_>) {
    let ids: Vec<Id> = search.best().records().map(|(client, r)| (client, r.n)).collect();
    if ids.len() > MAX_SINGLES {
        return;
    }
    search.leave_out(
        "record",
        ids,
        |id| format!("record {}", shown(id)),
        |plan, keep| {
            let keep: BTreeSet<Id> = keep.iter().copied().collect();
            retain(plan, |client, record| keep.contains(&(client, record.n)))
        },
    );
}

/// A record by its client and its number there.
type Id = (u32, u64);

fn shown((client, n): &Id) -> String {
    format!("{n} of client-{client}")
}

fn producers(plan: &Plan) -> impl Iterator<Item = (u32, &Batch)> {
    plan.clients.iter().flat_map(|client| match &client.role {
        ClientRole::Producer(p) => p.batches.iter().map(|b| (client.id, b)).collect::<Vec<_>>(),
        ClientRole::Reader(_) | ClientRole::Member(_) => Vec::new(),
    })
}

/// The plan with only the records that `keep` names; batches that become empty go.
pub(super) fn retain(plan: &Plan, keep: impl Fn(u32, &Record) -> bool) -> Plan {
    let mut plan = plan.clone();
    for_each_batches(&mut plan, |client, batches| {
        for batch in batches.iter_mut() {
            batch.records.retain(|record| keep(client, record));
        }
        batches.retain(|b| !b.records.is_empty());
    });
    plan
}

/// All batches of each producer. What the generator did on purpose no longer describes what is left.
pub(super) fn for_each_batches(plan: &mut Plan, mut change: impl FnMut(u32, &mut Vec<Batch>)) {
    for client in &mut plan.clients {
        if let ClientRole::Producer(p) = &mut client.role {
            change(client.id, &mut p.batches);
        }
    }
    plan.twists.clear();
}

/// Brings faults and laws to what is still there: those that name a node which is gone go too, but for one of several of a
/// split; a partition that is gone is replaced by one that is left.
pub(super) fn forget_missing_nodes(plan: &mut Plan) {
    let nodes: BTreeSet<NodeName> = plan.nodes().into_iter().collect();
    let roles: BTreeSet<Role> = nodes.iter().map(|n| n.role).collect();
    let is_there = |target: &Target| match target {
        Target::Node(name) => nodes.contains(name),
        Target::Role(role) => roles.contains(role),
        Target::Leader(_) | Target::Follower(_) | Target::Followers(_) | Target::Controller => true,
    };
    let workload: Vec<u32> = plan.topics.iter().map(|t| t.partitions).collect();
    let (offsets, transactions) = (plan.knobs.broker.offsets_partitions, plan.knobs.broker.transactions_partitions);
    let fit = |target: &mut Target| {
        if let Target::Leader(at) | Target::Follower(at) | Target::Followers(at) = target {
            let partitions = match at.topic {
                TopicRef::Workload(topic) => workload.get(topic as usize).copied().unwrap_or(1),
                TopicRef::Offsets => offsets,
                TopicRef::Transactions => transactions,
            };
            at.partition = at.partition.rem_euclid(partitions as i32);
        }
    };
    for fault in &mut plan.faults {
        if let Action::Split { nodes, .. } = &mut fault.action
            && nodes.iter().any(is_there)
        {
            nodes.retain(is_there);
        }
        fault.action.targets_mut().into_iter().for_each(fit);
        if let Trigger::CrashPoint(point) = &mut fault.trigger {
            fit(&mut point.node);
        }
    }
    plan.faults.retain(|fault| {
        let point = match &fault.trigger {
            Trigger::CrashPoint(point) => is_there(&point.node),
            Trigger::At { .. } => true,
        };
        point && fault.action.targets().iter().all(is_there)
    });
    plan.knobs.world.links.retain(|link| nodes.contains(&link.from) && nodes.contains(&link.to));
}
