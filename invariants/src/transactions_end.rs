//! **transactions-end.** Once faults stop, within the plan's bound no transaction is open: the last stable offset reaches
//! the log's end in every partition, and no coordinator is left between a decision and its markers.
//!
//! Source: rule 26; KIP-890, which is about transactions that hang.
//!
//! Not claimed: anything of a run that never healed, or was looked at before the bound had passed; that a prepared
//! transaction of a two-phase commit ends (its client decides).

use std::collections::BTreeMap;

use history::{Observation, Observed, TransactionState, Verdict, Witness};

use crate::{Context, Fate, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "transactions-end",
    statement: "after healing every transaction ends, and the last stable offset is the log's end",
    source: "semantics rule 26, KIP-890",
    kind: Kind::Liveness,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let facts = &context.history.facts;
    let Some(healed_ns) = facts.healed_ns else { return Verdict::Pass };
    if facts.ended_ns < healed_ns.saturating_add(facts.bound_ns) {
        return Verdict::unknown("the run was looked at before the plan's bound had passed since healing");
    }
    let mut found = Violations::of(&PROPERTY);
    let mut prepared: BTreeMap<i64, &str> = BTreeMap::new();
    let mut states: BTreeMap<&str, (TransactionState, i64, &Observation)> = BTreeMap::new();
    for seen in &context.history.observations {
        if let Observed::TransactionState { transactional_id, producer_id, state, .. } = &seen.what {
            states.insert(transactional_id, (*state, *producer_id, seen));
        }
    }
    for (id, (state, producer, seen)) in &states {
        if *state == TransactionState::Prepared {
            prepared.insert(*producer, id);
        }
        if matches!(state, TransactionState::PrepareCommit | TransactionState::PrepareAbort) {
            let witness = Witness::at(format_args!("transactional id {id}"))
                .about(format_args!("producer {producer}"))
                .expected("its markers written, and the state complete")
                .found(format_args!("{state:?} since {} ns", seen.at_ns));
            found.add(None, "a decided transaction is not complete after healing", witness);
        }
    }
    for ((topic, partition), raw) in context.raw() {
        let end = raw.log.log_end_offset;
        let Some(stable) = raw.log.last_stable_offset.filter(|stable| *stable < end) else { continue };
        let open = raw.log.records.iter().zip(&raw.fates).find(|(r, fate)| r.offset >= stable && **fate == Fate::Open);
        if open.is_some_and(|(r, _)| prepared.contains_key(&r.producer_id)) {
            continue;
        }
        let of = open.map_or("no open transaction".to_owned(), |(r, _)| {
            format!("producer {} epoch {}", r.producer_id, r.producer_epoch)
        });
        let witness = Witness::offset(topic, *partition, stable)
            .about(of)
            .expected(format_args!("a last stable offset at the log's end {end}"))
            .found(stable);
        found.add(open.and_then(|(r, _)| context.op_of(r)), "a transaction is still open after healing", witness);
    }
    found.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::mutate::*;
    use crate::fixture::{self, Mutator};

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
    }

    #[test]
    fn rejects_what_breaks_it() {
        fixture::rejects_cluster(
            &PROPERTY,
            &[DROP_MARKER, LOWER_FINAL_STABLE, TXN_NEVER_COMPLETES, TXN_STATES_SWAP],
            &[
                (Mutator::Duplicate, "what ended twice has ended"),
                (Mutator::Unacknowledge, "a transaction ends in the logs, whatever its client heard"),
                (Mutator::Misattribute, "whose transactions have ended does not matter when all have"),
            ],
        );
    }

    #[test]
    fn a_run_that_never_healed_is_not_judged() {
        let (mut history, _) = fixture::mutated(&fixture::cluster(), DROP_MARKER);
        history.facts.healed_ns = None;
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }

    #[test]
    fn a_prepared_transaction_waits_for_its_client() {
        let (mut history, _) = fixture::mutated(&fixture::cluster(), DROP_MARKER);
        let last = history.observations.last().expect("observations").clone();
        let what = Observed::TransactionState {
            transactional_id: "t".into(),
            producer_id: 200,
            producer_epoch: 0,
            coordinator_epoch: 1,
            state: TransactionState::Prepared,
        };
        history.observations.push(Observation { what, ..last });
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
