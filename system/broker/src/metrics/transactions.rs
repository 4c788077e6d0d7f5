//! The transactions that this broker coordinates.

use metrics::Snapshot;

use crate::context::Context;
use crate::txn::state::State;

const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::PrepareCommit,
    State::PrepareAbort,
    State::CompleteCommit,
    State::CompleteAbort,
];

pub(super) fn measure(context: &Context, out: &mut Snapshot) {
    let mut counts = STATES.map(|state| (state, 0));
    let mut oldest: Option<i64> = None;
    for shard in context.txn().shards() {
        // One that still reads its log knows nothing yet.
        let _ = shard.look(|machine| {
            for (_, txn) in machine.txns() {
                counts.iter_mut().filter(|(state, _)| *state == txn.state).for_each(|(_, n)| *n += 1);
                if is_open(txn.state) && txn.start_ms >= 0 {
                    oldest = Some(oldest.map_or(txn.start_ms, |ms| ms.min(txn.start_ms)));
                }
            }
        });
    }
    for (state, count) in counts {
        let family = "kafka_coordinator_transaction_transactioncount";
        out.gauge(family, "Transactional ids coordinated here", &[("state", &state.name())], count);
    }
    let open: i64 = counts.iter().filter(|(state, _)| is_open(*state)).map(|(_, n)| n).sum();
    out.gauge(
        "kafka_coordinator_transaction_opentransactions",
        "Transactions coordinated here that are ongoing, or whose markers are being written",
        &[],
        open,
    );
    // The wall clock may have stepped back.
    let age = oldest.map_or(0, |start| (env::clock::wall_ms() - start).max(0));
    out.gauge(
        "kafka_coordinator_transaction_oldesttransactionagems",
        "Milliseconds since the oldest of them began, 0 without any",
        &[],
        age,
    );
}

fn is_open(state: State) -> bool {
    state == State::Ongoing || state.is_prepare()
}
