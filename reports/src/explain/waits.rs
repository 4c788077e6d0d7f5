//! What did not come about in a run that got stuck: what is waited for, by whom, and since when.

use std::collections::BTreeMap;

use history::{Observed, Op, OpKind, TransactionState};

use super::names::Names;
use super::told::{Story, Weight};
use super::{Case, StepKind};

/// Of each sort, the latest.
const MAX_WAITS: usize = 3;

pub(super) fn tell(case: &Case<'_>, names: &Names, story: &mut Story) {
    transactions(case, names, story);
    groups(case, names, story);
    calls(case, story);
    checkpoints(case, names, story);
}

/// Transactions that were decided or begun, and have not ended.
fn transactions(case: &Case<'_>, names: &Names, story: &mut Story) {
    let mut last = BTreeMap::new();
    for seen in &case.history.observations {
        if let Observed::TransactionState { transactional_id, .. } = &seen.what {
            last.insert(transactional_id.as_str(), seen);
        }
    }
    let mut open: Vec<_> = last.into_iter().collect();
    open.sort_by_key(|(_, seen)| seen.at_ns);
    let mut told = 0;
    for (id, seen) in open {
        let Observed::TransactionState { producer_id, producer_epoch, state, .. } = &seen.what else { continue };
        let verb = match state {
            TransactionState::PrepareCommit => "decides to commit",
            TransactionState::PrepareAbort => "decides to abort",
            TransactionState::Ongoing => "begins",
            _ => continue,
        };
        told += 1;
        if told <= MAX_WAITS {
            let what = format!(
                "{verb} the transaction of {id}, producer {producer_id} epoch {producer_epoch}, and has not ended it \
                 by the end"
            );
            story.tell(Weight::Own, StepKind::Broker, seen.at_ns, names.observer(&seen.observer), what);
        }
    }
}

/// The last generation of each classic group.
fn groups(case: &Case<'_>, names: &Names, story: &mut Story) {
    let mut last = BTreeMap::new();
    for seen in &case.history.observations {
        if let Observed::GroupGeneration { group, .. } = &seen.what {
            last.insert(group.as_str(), seen);
        }
    }
    for (group, seen) in last {
        let Observed::GroupGeneration { generation, members, .. } = &seen.what else { continue };
        let what = format!(
            "generation {generation} of group {group} has {} members: it is the last that comes about",
            members.len()
        );
        story.tell(Weight::Own, StepKind::Broker, seen.at_ns, names.observer(&seen.observer), what);
    }
}

/// Calls of clients that nothing was heard of.
fn calls(case: &Case<'_>, story: &mut Story) {
    let waits: Vec<&Op> = case.history.ops.iter().filter(|op| op.completed_ns.is_none()).collect();
    let surplus = waits.len().saturating_sub(MAX_WAITS);
    for op in waits.into_iter().skip(surplus) {
        let what = match &op.kind {
            OpKind::Produce { topic, partition, .. } => format!("a record to {topic}-{partition}"),
            OpKind::EndTxn { txn, commit: true } => format!("the commit of transaction {txn}"),
            OpKind::EndTxn { txn, commit: false } => format!("the abort of transaction {txn}"),
            OpKind::CommitOffset { group, topic, partition, offset } => {
                format!("the commit of offset {offset} of group {group} for {topic}-{partition}")
            }
            OpKind::Poll { .. } => "a poll".to_owned(),
            OpKind::Other { name } => name.clone(),
            OpKind::FetchOffset { .. }
            | OpKind::Assign { .. }
            | OpKind::Subscribe { .. }
            | OpKind::Rebalance { .. } => continue,
        };
        let what = format!("asks for {what}, operation {}, and hears nothing by the end", op.n);
        story.tell(Weight::Own, StepKind::Client, op.invoked_ns, format!("client-{}", op.client), what);
    }
}

/// The last checkpoint of the job.
fn checkpoints(case: &Case<'_>, names: &Names, story: &mut Story) {
    let last = case.history.observations.iter().rfind(|seen| matches!(seen.what, Observed::CheckpointComplete { .. }));
    if let Some(seen) = last
        && let Observed::CheckpointComplete { generation, n } = seen.what
    {
        let what = format!("checkpoint {n} of attempt {generation} is complete: it is the last that is");
        story.tell(Weight::Own, StepKind::Job, seen.at_ns, names.observer(&seen.observer), what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn what_did_not_come_about_is_told() {
        let mut scene = Scene::new();
        scene.see(0, Observed::GroupGeneration { group: "g".into(), generation: 4, members: Vec::new() });
        scene.see(0, Observed::CheckpointComplete { generation: 2, n: 9 });
        for (id, state) in [("done", TransactionState::CompleteAbort), ("stuck", TransactionState::PrepareAbort)] {
            let (transactional_id, producer_id, producer_epoch) = (id.to_owned(), 7, 1);
            let coordinator_epoch = 0;
            scene.see(
                1,
                Observed::TransactionState { transactional_id, producer_id, producer_epoch, coordinator_epoch, state },
            );
        }
        scene.history.invoke(3, 0, 5, OpKind::EndTxn { txn: 8, commit: true });
        assert_eq!(
            scene.all(|case, names, _, story| tell(case, names, story)),
            [
                "broker-1: decides to abort the transaction of stuck, producer 7 epoch 1, and has not ended it by \
                 the end",
                "broker-0: generation 4 of group g has 0 members: it is the last that comes about",
                "client-3: asks for the commit of transaction 8, operation 0, and hears nothing by the end",
                "broker-0: checkpoint 9 of attempt 2 is complete: it is the last that is",
            ]
        );
    }
}
