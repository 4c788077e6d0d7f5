//! The workload: whole clients, batches in time order, keys, single records.
//!
//! What is left keeps its numbers (`op.n`), times and values: a record of the shrunk plan is found in the first one.

use std::collections::BTreeSet;

use scenarios::Plan;
use scenarios::plan::{Batch, ClientRole, NodeName, Payload, Record, Role, Target};

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
        ClientRole::Reader(_) => Vec::new(),
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

/// Faults and laws that name a node which is no longer there.
pub(super) fn forget_missing_nodes(plan: &mut Plan) {
    let nodes: BTreeSet<NodeName> = plan.nodes().into_iter().collect();
    let roles: BTreeSet<Role> = nodes.iter().map(|n| n.role).collect();
    plan.faults.retain(|fault| {
        fault.action.targets().iter().all(|target| match target {
            Target::Node(name) => nodes.contains(name),
            Target::Role(role) => roles.contains(role),
        })
    });
    plan.knobs.world.links.retain(|link| nodes.contains(&link.from) && nodes.contains(&link.to));
}
