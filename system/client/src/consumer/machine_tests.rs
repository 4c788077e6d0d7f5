//! The consumer's decisions, by hand.

use protocol::batch::{BatchBuilder, Record};
use protocol::messages::MetadataResponse;
use protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use protocol::topic_name;

use super::*;

fn ms(n: u64) -> Instant {
    Instant::from_nanos(n * 1_000_000)
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// Partition p of topic `t` is led by broker p.
fn metadata(id: u128) -> Rc<Metadata> {
    let p = |n: i32| {
        MetadataResponsePartition::default().with_partition_index(n).with_leader_id(n.into()).with_leader_epoch(3)
    };
    let topic = MetadataResponseTopic::default()
        .with_name(Some(topic_name("t")))
        .with_topic_id(Uuid::from_u128(id))
        .with_partitions(vec![p(0), p(1)]);
    let mut metadata = Metadata::default();
    metadata.update(&MetadataResponse::default().with_topics(vec![topic]));
    Rc::new(metadata)
}

fn machine(out_of_range: OutOfRange) -> Machine {
    let mut m = Machine::new(Settings {
        isolation: Isolation::ReadCommitted,
        out_of_range,
        max_wait: Duration::from_millis(500),
        backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) },
        limits: Limits::default(),
    });
    m.set_metadata(metadata(1));
    m
}

fn fetches(actions: Vec<Action>) -> BTreeMap<i32, Vec<Wanted>> {
    let fetch = |a| match a {
        Action::Fetch { node, partitions } => Some((node, partitions)),
        _ => None,
    };
    actions.into_iter().filter_map(fetch).collect()
}

fn data(records: i64) -> Answer {
    let mut b = BatchBuilder::new();
    for _ in 0..records {
        b.push(&Record::default());
    }
    Answer { high_watermark: records, last_stable_offset: records, records: b.build(), ..Answer::default() }
}

fn one(wanted: &Wanted, answer: Answer) -> Result<BTreeMap<TopicPartition, Answer>, CallError> {
    Ok(BTreeMap::from([(wanted.tp.clone(), answer)]))
}

#[test]
fn fetches_from_every_leader_at_once_and_from_each_once() {
    let mut m = machine(OutOfRange::Fail);
    m.assign(vec![(tp(0), 0), (tp(1), 7)]);
    let sent = fetches(m.poll(ms(0)));
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[&1][0].position, sent[&1][0].leader_epoch), (7, 3));
    assert!(fetches(m.poll(ms(1))).is_empty());
    assert_eq!(m.next_timeout(), None, "an answer will wake us");

    m.fetched(ms(5), ms(0), 0, sent[&0].clone(), one(&sent[&0][0], data(4)));
    let results = m.take_results();
    assert_eq!((results[0].records.len(), results[0].position, results[0].high_watermark), (4, 4, 4));
    assert_eq!((results[0].sent_at, results[0].received_at), (ms(0), ms(5)));
    let sent = fetches(m.poll(ms(5)));
    assert_eq!(sent[&0][0].position, 4);
}

#[test]
fn a_lost_response_is_reported_and_repeated_after_a_wait() {
    let mut m = machine(OutOfRange::Fail);
    m.assign(vec![(tp(0), 0)]);
    let sent = fetches(m.poll(ms(0)));
    m.fetched(ms(10), ms(0), 0, sent[&0].clone(), Err(CallError::Lost("cut".into())));
    assert!(m.take_results()[0].error.is_some());
    let actions = m.poll(ms(10));
    assert_eq!(actions, [Action::RefreshMetadata], "the leader may be elsewhere");
    m.metadata_refreshed(ms(11), true);
    assert_eq!(m.next_timeout(), Some(ms(110)));
    assert_eq!(fetches(m.poll(ms(110)))[&0][0].position, 0);
}

#[test]
fn an_empty_answer_that_comes_at_once_is_not_asked_for_in_a_loop() {
    let mut m = machine(OutOfRange::Fail);
    m.assign(vec![(tp(0), 0)]);
    let sent = fetches(m.poll(ms(0)));
    m.fetched(ms(1), ms(0), 0, sent[&0].clone(), one(&sent[&0][0], Answer::default()));
    assert_eq!(m.take_results().len(), 1, "an empty fetch is a result");
    assert!(fetches(m.poll(ms(1))).is_empty());
    assert_eq!(m.next_timeout(), Some(ms(101)));
    let sent = fetches(m.poll(ms(101)));
    m.fetched(ms(601), ms(101), 0, sent[&0].clone(), one(&sent[&0][0], Answer::default()));
    assert_eq!(fetches(m.poll(ms(601))).len(), 1, "one that was held is asked for again at once");
}

#[test]
fn a_sought_partition_ignores_the_answer_on_its_way() {
    let mut m = machine(OutOfRange::Fail);
    m.assign(vec![(tp(0), 0)]);
    let sent = fetches(m.poll(ms(0)));
    assert!(m.seek(&tp(0), 100));
    m.fetched(ms(5), ms(0), 0, sent[&0].clone(), one(&sent[&0][0], data(4)));
    assert!(m.take_results().is_empty());
    assert_eq!(m.positions()[&tp(0)], 100);
    assert_eq!(fetches(m.poll(ms(5)))[&0][0].position, 100);
    assert!(!m.seek(&tp(9), 0));
}

#[test]
fn a_paused_partition_keeps_its_position() {
    let mut m = machine(OutOfRange::Fail);
    m.assign(vec![(tp(0), 0)]);
    let sent = fetches(m.poll(ms(0)));
    m.set_paused(&tp(0), true);
    m.fetched(ms(5), ms(0), 0, sent[&0].clone(), one(&sent[&0][0], data(4)));
    assert!(m.take_results().is_empty());
    assert!(fetches(m.poll(ms(5))).is_empty());
    assert_eq!(m.next_timeout(), None);
    m.set_paused(&tp(0), false);
    assert_eq!(fetches(m.poll(ms(6)))[&0][0].position, 0);
}

#[test]
fn out_of_range_stops_until_sought() {
    let mut m = machine(OutOfRange::Fail);
    m.assign(vec![(tp(0), 50)]);
    let sent = fetches(m.poll(ms(0)));
    let answer = Answer { code: ErrorCode::OFFSET_OUT_OF_RANGE, ..Answer::default() };
    m.fetched(ms(5), ms(0), 0, sent[&0].clone(), one(&sent[&0][0], answer));
    assert!(m.take_results()[0].error.as_ref().unwrap().stopped);
    m.poll(ms(10));
    m.metadata_refreshed(ms(11), true);
    assert!(fetches(m.poll(ms(10_000))).is_empty());
    m.seek(&tp(0), 0);
    assert_eq!(fetches(m.poll(ms(10_000))).len(), 1);
}

#[test]
fn out_of_range_goes_where_it_was_told_to() {
    let mut m = machine(OutOfRange::Earliest);
    m.assign(vec![(tp(0), 50)]);
    let sent = fetches(m.poll(ms(0)));
    let answer = Answer { code: ErrorCode::OFFSET_OUT_OF_RANGE, ..Answer::default() };
    m.fetched(ms(5), ms(0), 0, sent[&0].clone(), one(&sent[&0][0], answer));
    let actions = m.poll(ms(200));
    let Some(Action::FindOffset { tp: found, generation, earliest: true }) = actions.first() else {
        panic!("{actions:?}")
    };
    m.reset(ms(210), found, *generation, Some(20));
    assert_eq!(fetches(m.poll(ms(210)))[&0][0].position, 20);
}

#[test]
fn a_recreated_topic_is_another_topic() {
    let mut m = machine(OutOfRange::Fail);
    m.assign(vec![(tp(0), 0)]);
    let sent = fetches(m.poll(ms(0)));
    m.fetched(ms(5), ms(0), 0, sent[&0].clone(), one(&sent[&0][0], data(4)));
    m.take_results();
    m.set_metadata(metadata(2));
    assert!(fetches(m.poll(ms(5))).is_empty());
    let error = m.take_results().pop().unwrap().error.unwrap();
    assert_eq!((error.code, error.stopped), (Some(ErrorCode::INCONSISTENT_TOPIC_ID), true));
}

#[test]
fn a_leader_of_before_what_was_read_is_not_asked() {
    let mut m = machine(OutOfRange::Fail);
    m.assign_more(tp(0), 67, 4);
    let actions = m.poll(ms(0));
    assert_eq!(actions, [Action::RefreshMetadata], "it leads in epoch 3: somebody else was read from in epoch 4");
    m.metadata_refreshed(ms(1), true);
    assert!(m.poll(ms(1)).is_empty() && m.next_timeout().is_some_and(|at| at > ms(1)), "not again at once");
    m.assign_more(tp(0), 67, 3);
    assert_eq!(fetches(m.poll(ms(2)))[&0][0].position, 67);
}
