//! The transaction that the violation is about, as its coordinator had it.

use history::{LogSource, Observation, Observed, OpKind, TransactionState};

use super::clue::{Clue, at};
use super::names::Names;
use super::told::{Story, Weight};
use super::{Case, StepKind};

/// Decisions that are told at most; the last ones.
const MAX_STATES: usize = 8;

/// States of the transactional id, with who decided without being asked to.
pub(super) fn tell(case: &Case<'_>, names: &Names, clue: &Clue, story: &mut Story) {
    let Some(id) = id_of(case, clue) else { return };
    // (transaction, client, commit, asked at) in order of asking; and when the transaction began.
    let spans = spans(case, clue);
    let is_of = |seen: &&Observation| match &seen.what {
        Observed::TransactionState { transactional_id, .. } => *transactional_id == id,
        _ => false,
    };
    let mut told = Vec::new();
    let (mut last_ongoing, mut open_since, mut last) = (None, None, None);
    for seen in case.history.observations.iter().filter(is_of) {
        let Observed::TransactionState { producer_id, producer_epoch, state, .. } = &seen.what else { continue };
        // A coordinator that loads its log tells of it again.
        if last.replace((*producer_id, *producer_epoch, *state)) == Some((*producer_id, *producer_epoch, *state)) {
            continue;
        }
        let of = format!("transaction of {id}, producer {producer_id} epoch {producer_epoch}");
        let mut odd = None;
        let what = match state {
            TransactionState::Ongoing | TransactionState::Prepared => {
                if open_since.is_some() {
                    continue;
                }
                open_since = Some(seen.at_ns);
                let same =
                    last_ongoing.replace((*producer_id, *producer_epoch)) == Some((*producer_id, *producer_epoch));
                if same {
                    odd = Some(("same epoch", "the one before had that epoch too".to_owned()));
                }
                format!("begins the {of}")
            }
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                let commit = *state == TransactionState::PrepareCommit;
                let began = open_since.take().unwrap_or(seen.at_ns);
                let what = format!("decides to {} the {of}", if commit { "commit" } else { "abort" });
                if last_ongoing == Some((*producer_id, *producer_epoch)) {
                    odd = Some(("not bumped", "the epoch does not rise".to_owned()));
                }
                if let Some((.., at)) = clue.decided.filter(|(p, e, _)| (p, e) == (producer_id, producer_epoch)) {
                    odd = Some(("decided before", format!("the log of its coordinators has a decision at {at}")));
                }
                match unasked(&spans, began, seen.at_ns, commit) {
                    // A time-out, or another holder of the id: that is a coordinator's right.
                    Some(why) if !commit => format!("{what}; {why}"),
                    why => {
                        odd = why.map(|why| ("unasked", why)).or(odd);
                        what
                    }
                }
            }
            TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                open_since = None;
                format!("has ended the {of}")
            }
            TransactionState::Empty | TransactionState::Dead => continue,
        };
        told.push((seen.at_ns, names.observer(&seen.observer), what, odd));
    }
    let before = clue_time(case, clue).map_or(told.len(), |at_ns| {
        let next = told.partition_point(|(at, ..)| *at <= at_ns);
        (next + MAX_STATES / 2).min(told.len())
    });
    for (i, (at_ns, who, what, odd)) in told.into_iter().enumerate() {
        match odd {
            Some((sort, though)) => story.odd(sort, StepKind::Broker, at_ns, who, format!("{what}, though {though}")),
            None if i < before && i + MAX_STATES >= before => {
                story.tell(Weight::Near, StepKind::Broker, at_ns, who, what)
            }
            None => {}
        }
    }
}

/// When the guilty operation was asked for.
fn clue_time(case: &Case<'_>, clue: &Clue) -> Option<u64> {
    Some(case.history.ops[clue.op?.0].invoked_ns)
}

/// Of one transaction of the workload.
struct Span {
    txn: u64,
    client: u32,
    from_ns: u64,
    /// When its client asked for its end, and which.
    asked: Option<(u64, bool)>,
}

/// The transactions of the client whose operation the violation is about.
fn spans(case: &Case<'_>, clue: &Clue) -> Vec<Span> {
    let ops = &case.history.ops;
    let of_txn = clue.txn.and_then(|txn| {
        ops.iter().find(
            |op| matches!(op.kind, OpKind::EndTxn { txn: t, .. } | OpKind::Produce { txn: Some(t), .. } if t == txn),
        )
    });
    let Some(client) = clue.op.map(|id| &ops[id.0]).or(of_txn).map(|op| op.client) else { return Vec::new() };
    let mut spans: Vec<Span> = Vec::new();
    for op in ops.iter().filter(|op| op.client == client) {
        match op.kind {
            OpKind::Produce { txn: Some(txn), .. } if spans.last().is_none_or(|s| s.txn != txn) => {
                spans.push(Span { txn, client, from_ns: op.invoked_ns, asked: None });
            }
            OpKind::EndTxn { txn, commit } => {
                if let Some(span) = spans.iter_mut().rfind(|s| s.txn == txn) {
                    span.asked.get_or_insert((op.invoked_ns, commit));
                }
            }
            _ => {}
        }
    }
    spans
}

/// Why a decision about what was open from `began` on until `at_ns` is not the client's.
fn unasked(spans: &[Span], began: u64, at_ns: u64, commit: bool) -> Option<String> {
    // The transaction under way then: of those that had begun, the last.
    let span = spans.iter().rfind(|s| s.from_ns <= at_ns)?;
    let asked = span.asked.filter(|(asked, _)| *asked <= at_ns);
    match asked {
        Some((_, wanted)) if wanted == commit => None,
        Some((_, wanted)) if began >= span.from_ns => {
            let verb = if wanted { "commit" } else { "abort" };
            Some(format!("client-{} asked to {verb} transaction {}", span.client, span.txn))
        }
        None if began >= span.from_ns => Some(format!("client-{} has not ended transaction {}", span.client, span.txn)),
        _ => None,
    }
}

/// The partition of the log that keeps the transaction.
pub(super) fn coordinator(case: &Case<'_>, clue: &Clue) -> Option<(String, i32)> {
    const LOG: &str = "__transaction_state";
    let id = id_of(case, clue)?;
    let of_log = |seen: &Observation| match &seen.what {
        Observed::IsrChanged { topic, partition, .. } if topic == LOG => Some(partition + 1),
        _ => None,
    };
    let partitions = case.history.observations.iter().filter_map(of_log).max()?;
    // As Kafka chooses it: Java's hash of the id.
    let hash = id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    Some((LOG.to_owned(), (hash & i32::MAX) % partitions))
}

/// The id that the violation names, or whose producer wrote the record.
fn id_of(case: &Case<'_>, clue: &Clue) -> Option<String> {
    if let Some(id) = &clue.transactional_id {
        return Some(id.clone());
    }
    let history = case.history;
    let of_record = clue.record.as_ref().and_then(|(topic, partition, offset)| {
        let log = history.log(&LogSource::ReadUncommitted, topic, *partition)?;
        at(log, *offset).filter(|r| r.transactional).map(|r| r.producer_id)
    });
    let of_txn = || {
        let txn = clue.txn?;
        let records = history.logs_from(&LogSource::ReadUncommitted).flat_map(|log| &log.records);
        records.into_iter().find(|r| r.op_txn() == Some(txn)).map(|r| r.producer_id)
    };
    let producer = of_record.or_else(of_txn)?;
    history.observations.iter().find_map(|seen| match &seen.what {
        Observed::TransactionState { transactional_id, producer_id, .. } if *producer_id == producer => {
            Some(transactional_id.clone())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use history::OpResult;

    use super::super::fixture::Scene;
    use super::*;

    fn state(scene: &mut Scene, producer_epoch: i16, state: TransactionState) {
        let (transactional_id, producer_id) = ("client-2".to_owned(), 7);
        let what =
            Observed::TransactionState { transactional_id, producer_id, producer_epoch, coordinator_epoch: 0, state };
        scene.see(0, what);
    }

    fn produce(scene: &mut Scene, txn: u64) {
        let kind = OpKind::Produce {
            topic: "events".into(),
            partition: 0,
            key: None,
            value: None,
            acks: -1,
            idempotent: true,
            txn: Some(txn),
        };
        scene.op(2, kind, OpResult::Ok { offset: None });
    }

    fn scene() -> Scene {
        let mut scene = Scene::new();
        scene.clue.transactional_id = Some("client-2".into());
        scene.clue.op = Some(history::OpId(0));
        scene
    }

    fn ok() -> OpResult {
        OpResult::Ok { offset: None }
    }

    #[test]
    fn a_decision_that_nobody_asked_for_is_named() {
        let mut scene = scene();
        produce(&mut scene, 1);
        state(&mut scene, 4, TransactionState::Ongoing);
        scene.op(2, OpKind::EndTxn { txn: 1, commit: true }, ok());
        state(&mut scene, 5, TransactionState::PrepareCommit);
        state(&mut scene, 5, TransactionState::CompleteCommit);
        assert_eq!(scene.odd(tell), [""; 0]);
        produce(&mut scene, 2);
        state(&mut scene, 5, TransactionState::Ongoing);
        state(&mut scene, 6, TransactionState::PrepareCommit);
        let whole = scene.all(tell);
        assert_eq!(whole[1], "broker-0: decides to commit the transaction of client-2, producer 7 epoch 5");
        let though = "client-2 has not ended transaction 2";
        assert_eq!(
            scene.odd(tell),
            [format!("broker-0: decides to commit the transaction of client-2, producer 7 epoch 6, though {though}")]
        );
    }

    #[test]
    fn a_second_decision_is_named() {
        let mut scene = scene();
        scene.clue.decided = Some((7, 5, 3));
        produce(&mut scene, 1);
        state(&mut scene, 4, TransactionState::Ongoing);
        scene.op(2, OpKind::EndTxn { txn: 1, commit: false }, ok());
        state(&mut scene, 5, TransactionState::PrepareAbort);
        let decides = "broker-0: decides to abort the transaction of client-2, producer 7 epoch 5";
        assert_eq!(scene.odd(tell), [format!("{decides}, though the log of its coordinators has a decision at 3")]);
    }

    #[test]
    fn a_transaction_in_the_epoch_of_the_one_before_is_named() {
        let mut scene = scene();
        for txn in [1, 2] {
            produce(&mut scene, txn);
            state(&mut scene, 4, TransactionState::Ongoing);
            scene.op(2, OpKind::EndTxn { txn, commit: true }, ok());
            state(&mut scene, 4, TransactionState::PrepareCommit);
            state(&mut scene, 4, TransactionState::CompleteCommit);
        }
        let of = "the transaction of client-2, producer 7 epoch 4";
        let decides = format!("broker-0: decides to commit {of}, though the epoch does not rise");
        let begins = format!("broker-0: begins {of}, though the one before had that epoch too");
        assert_eq!(scene.odd(tell), [decides.clone(), begins, decides]);
    }
}
