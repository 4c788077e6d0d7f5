//! DescribeTransactions and ListTransactions: what a coordinator tells of its transactional ids (KIP-664).
//!
//! Only what is durable is told: a change on its way to the log is not there yet.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::messages::describe_transactions_response::{TopicData, TransactionState as Described};
use protocol::messages::list_transactions_response::TransactionState as Listed;
use protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse,
    ProducerId, TransactionalId,
};
use protocol::{ErrorCode, StrBytes, str_bytes, topic_name};

use super::state::{State, Txn};
use crate::context::Context;

/// The states that a filter may name. The last two are Kafka's own, and never found here.
const STATES: &[&str] = &[
    State::Empty.name(),
    State::Ongoing.name(),
    State::PrepareCommit.name(),
    State::PrepareAbort.name(),
    State::CompleteCommit.name(),
    State::CompleteAbort.name(),
    "PrepareEpochFence",
    "Dead",
];

pub(crate) async fn describe(
    context: &Rc<Context>,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        let found = if id.is_empty() {
            Err(ErrorCode::INVALID_REQUEST)
        } else {
            let found = context.txn().look(&id, |machine| machine.txn(&id).map(described)).await;
            found.and_then(|described| described.ok_or(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND))
        };
        let described = found.unwrap_or_else(|error| Described::default().with_error_code(error.code()));
        states.push(described.with_transactional_id(id));
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn described(txn: &Txn) -> Described {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &txn.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics
        .into_iter()
        .map(|(topic, indexes)| TopicData::default().with_topic(topic_name(topic)).with_partitions(indexes));
    Described::default()
        .with_transaction_state(str_bytes(txn.state.name()))
        .with_transaction_timeout_ms(txn.timeout_ms)
        .with_transaction_start_time_ms(txn.start_ms)
        .with_producer_id(ProducerId(txn.producer.producer_id))
        .with_producer_epoch(txn.producer.epoch)
        .with_topics(topics.collect())
}

pub(crate) fn list(context: &Rc<Context>, request: &ListTransactionsRequest) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    let unknown = request.state_filters.iter().filter(|state| !STATES.contains(&state.as_str()));
    let unknown: Vec<StrBytes> = unknown.cloned().collect();
    let now_ms = env::clock::wall_ms();
    let mut listed = Vec::new();
    for shard in context.txn().shards() {
        let found = shard.look(|machine| {
            let wanted = machine.txns().filter(|(_, txn)| matches(request, txn, now_ms));
            let one = |(id, txn): (&String, &Txn)| {
                Listed::default()
                    .with_transactional_id(TransactionalId(str_bytes(id.clone())))
                    .with_producer_id(ProducerId(txn.producer.producer_id))
                    .with_transaction_state(str_bytes(txn.state.name()))
            };
            wanted.map(one).collect::<Vec<_>>()
        });
        match found {
            Ok(found) => listed.extend(found),
            // One that was deposed a moment ago has nothing to tell: its ids are listed where they are now.
            Err(ErrorCode::NOT_COORDINATOR) => {}
            Err(error) => return response.with_error_code(error.code()),
        }
    }
    response.with_unknown_state_filters(unknown).with_transaction_states(listed)
}

/// By state, by producer id and by how long the transaction has run; a filter that is empty, or below 0, lets all pass.
fn matches(request: &ListTransactionsRequest, txn: &Txn, now_ms: i64) -> bool {
    let state = &request.state_filters;
    let producer = &request.producer_id_filters;
    let duration_ms = request.duration_filter;
    (state.is_empty() || state.iter().any(|s| s.as_str() == txn.state.name()))
        && (producer.is_empty() || producer.iter().any(|p| p.0 == txn.producer.producer_id))
        && (duration_ms < 0 || (txn.start_ms >= 0 && now_ms.saturating_sub(txn.start_ms) > duration_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::state::ProducerIdEpoch;

    fn ongoing() -> Txn {
        let mut txn = Txn::new(ProducerIdEpoch::new(7, 3), 60_000, 100);
        txn.state = State::Ongoing;
        txn.start_ms = 100;
        txn.partitions = [("b".to_owned(), 1), ("a".to_owned(), 0), ("b".to_owned(), 0)].into();
        txn
    }

    #[test]
    fn a_transaction_is_described_with_its_partitions_by_topic() {
        let told = described(&ongoing());
        assert_eq!(told.transaction_state.as_str(), "Ongoing");
        assert_eq!((told.producer_id.0, told.producer_epoch), (7, 3));
        assert_eq!((told.transaction_timeout_ms, told.transaction_start_time_ms), (60_000, 100));
        let topics: Vec<_> = told.topics.iter().map(|t| (t.topic.as_str(), t.partitions.as_slice())).collect();
        assert_eq!(topics, [("a", &[0][..]), ("b", &[0, 1][..])]);
    }

    #[test]
    fn filters_are_all_met_or_the_id_is_left_out() {
        let all = ListTransactionsRequest::default().with_duration_filter(-1);
        let txn = ongoing();
        assert!(matches(&all, &txn, 1100));
        let state = |s: &'static str| all.clone().with_state_filters(vec![str_bytes("Empty"), str_bytes(s)]);
        assert!(matches(&state("Ongoing"), &txn, 1100) && !matches(&state("PrepareCommit"), &txn, 1100));
        let producer = |id| all.clone().with_producer_id_filters(vec![ProducerId(id)]);
        assert!(matches(&producer(7), &txn, 1100) && !matches(&producer(8), &txn, 1100));
        let longer_than = |ms| all.clone().with_duration_filter(ms);
        assert!(matches(&longer_than(999), &txn, 1100) && !matches(&longer_than(1000), &txn, 1100));
        let empty = Txn::new(ProducerIdEpoch::new(7, 3), 60_000, 0);
        assert!(!matches(&longer_than(0), &empty, 1100), "there is no transaction that could have run");
        let both = state("Ongoing").with_producer_id_filters(vec![ProducerId(8)]);
        assert!(!matches(&both, &txn, 1100));
    }
}
