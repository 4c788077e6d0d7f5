//! What is odd about copies of a partition, and what is not.

use super::super::fixture::Scene;
use super::*;

fn batch(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Batch {
    Batch { producer_id, producer_epoch, base_sequence }
}

fn append(scene: &mut Scene, broker: u32, base: i64, batch: Batch) {
    scene.log(broker, LogEvent::Appended { base, last: base, transactional: true, batch });
}

/// Broker 0 leads with one record that broker 1 has, synced on both.
fn replicated() -> Scene {
    let mut scene = Scene::new();
    scene.leads(0, 1, 0);
    scene.log(1, LogEvent::Followed { leader_epoch: 1, leader: Some(0), end: 0 });
    scene.in_sync(0, &[0, 1]);
    append(&mut scene, 0, 0, batch(7, 0, 0));
    scene.log(1, LogEvent::Replicated { base: 0, last: 0 });
    for broker in [0, 1] {
        scene.log(broker, LogEvent::Flushed { offset: 1 });
    }
    scene.high_watermark(0, 1);
    scene
}

/// Broker 0 wrote offset 1 in epoch 1 and broker 1, which did not get it, in epoch 2.
fn parted() -> Scene {
    let mut scene = replicated();
    append(&mut scene, 0, 1, batch(7, 0, 1));
    scene.leads(1, 2, 1);
    append(&mut scene, 1, 1, batch(8, 0, 0));
    append(&mut scene, 1, 2, batch(8, 0, 1));
    scene.log(0, LogEvent::Followed { leader_epoch: 2, leader: Some(1), end: 2 });
    scene
}

#[test]
fn what_is_as_it_must_be_is_not_odd() {
    let mut scene = parted();
    scene.log(0, LogEvent::Truncated { from: 2, to: 1, high_watermark: 1 });
    scene.log(0, LogEvent::Replicated { base: 1, last: 2 });
    assert_eq!(scene.odd(tell), [""; 0]);
    assert_eq!(
        scene.all(tell),
        [
            "broker-0: leads events-0 in epoch 1, log end 0",
            "broker-0: in-sync set of events-0 is [0, 1] in epoch 1",
            "broker-1: leads events-0 in epoch 2, log end 1",
            "broker-0: follows broker-1 on events-0 in epoch 2, log end 2",
            "broker-0: truncates events-0 from 2 to 1, its high watermark 1",
            "broker-0: goes on with events-0 from 1 on in epoch 2",
        ]
    );
}

#[test]
fn a_follower_that_keeps_what_its_leader_has_not_is_named() {
    let mut scene = parted();
    scene.log(0, LogEvent::Replicated { base: 2, last: 2 });
    assert_eq!(
        scene.odd(tell),
        ["broker-0: goes on with events-0 from 2 on in epoch 2, though its log parts from that of broker-1 at 1"]
    );
    let mut scene = parted();
    let (topic, partition, leader_epoch, offset) = ("events".into(), 0, 2, 2);
    scene.see(0, Observed::FollowerHighWatermark { topic, partition, leader_epoch, offset });
    assert_eq!(
        scene.odd(tell),
        [
            "broker-0: takes 2 for the high watermark of events-0, though its log parts from that of broker-1 at 1",
            "broker-0: follows broker-1 on events-0 in epoch 2, log end 2, though its log parts from that of broker-1 \
             at 1: to the end",
        ]
    );
}

#[test]
fn a_cut_below_the_high_watermark_and_a_leader_without_it_are_named() {
    let mut scene = replicated();
    scene.log(1, LogEvent::Truncated { from: 1, to: 0, high_watermark: 0 });
    scene.leads(1, 2, 0);
    assert_eq!(
        scene.odd(tell),
        [
            "broker-1: truncates events-0 from 1 to 0, its high watermark 0, though it is committed and as that of broker-0 \
             up to 1",
            "broker-1: leads events-0 in epoch 2, log end 0, though the high watermark was 1",
        ]
    );
}

#[test]
fn a_high_watermark_past_what_members_have_is_named() {
    let rises = "broker-0: high watermark of events-0 rises to";
    let mut scene = replicated();
    append(&mut scene, 0, 1, batch(7, 0, 1));
    scene.log(0, LogEvent::Flushed { offset: 2 });
    scene.high_watermark(0, 2);
    assert_eq!(scene.odd(tell), [format!("{rises} 2, though the log of broker-1, in sync, ends at 1")]);
    let mut scene = replicated();
    append(&mut scene, 0, 1, batch(7, 0, 1));
    scene.log(0, LogEvent::Flushed { offset: 2 });
    scene.log(1, LogEvent::Replicated { base: 1, last: 1 });
    scene.high_watermark(0, 2);
    assert_eq!(scene.odd(tell), [format!("{rises} 2, though broker-1, in sync, has synced 1")]);
    let mut scene = parted();
    scene.in_sync(1, &[0, 1]);
    scene.high_watermark(1, 2);
    let odd = scene.odd(tell);
    assert!(
        odd.contains(
            &"broker-1: high watermark of events-0 rises to 2, though the log of broker-0, in sync, parts \
                           from it at 1"
                .to_owned()
        ),
        "{odd:?}"
    );
}

#[test]
fn an_in_sync_set_with_one_that_is_short_of_the_epoch_is_named() {
    let mut scene = replicated();
    append(&mut scene, 0, 1, batch(7, 0, 1));
    scene.leads(0, 2, 2);
    scene.log(0, LogEvent::IsrAsked { leader_epoch: 2, isr: vec![0, 1] });
    assert_eq!(
        scene.odd(tell),
        ["broker-0: asks for the in-sync set [0, 1] of events-0, though broker-1 ends at 1 and epoch 2 begins \
             at 2"]
    );
}

#[test]
fn an_in_sync_set_with_a_newcomer_that_is_short_of_what_is_committed_is_named() {
    let mut scene = replicated();
    scene.log(2, LogEvent::Opened { start: 0, end: 0, first_open: None, aborted: None });
    scene.log(0, LogEvent::IsrAsked { leader_epoch: 1, isr: vec![0, 1, 2] });
    assert_eq!(
        scene.odd(tell),
        ["broker-0: asks for the in-sync set [0, 1, 2] of events-0, though broker-2 ends at 0 and the high watermark \
             is 1"]
    );
}

#[test]
fn batches_that_do_not_belong_where_they_are_put_are_named() {
    let appends =
        |epoch, sequence| format!("broker-0: appends producer 7 epoch {epoch} sequence {sequence} to events-0");
    let mut scene = replicated();
    append(&mut scene, 0, 1, batch(7, 0, 5));
    append(&mut scene, 0, 2, batch(7, 0, 0));
    scene.log(0, LogEvent::Marker { offset: 3, producer_id: 7, producer_epoch: 1, commit: true });
    append(&mut scene, 0, 4, batch(7, 0, 6));
    append(&mut scene, 0, 5, batch(7, 2, 0));
    append(&mut scene, 0, 6, batch(7, 1, 0));
    assert_eq!(
        scene.odd(tell),
        [
            format!("{} at 1, though sequence 1 is due", appends(0, 5)),
            format!("{} at 2, though it has it at 0", appends(0, 0)),
            format!("{} at 4, though the marker of epoch 1 is at 3", appends(0, 6)),
            format!("{} at 6, though epoch 2 is there from 5 on", appends(1, 0)),
        ]
    );
}

#[test]
fn refusals_and_copies_that_the_log_belies_are_named() {
    let mut scene = replicated();
    scene.log(0, LogEvent::Refused { error: 45, batch: batch(7, 0, 0) });
    scene.log(0, LogEvent::Duplicate { base: 4, last: 5, producer_id: 7 });
    scene.log(0, LogEvent::Marker { offset: 1, producer_id: 7, producer_epoch: 1, commit: true });
    scene.log(0, LogEvent::MarkerRefused { error: 47, producer_id: 7, producer_epoch: 1 });
    // These are as they must be.
    scene.log(0, LogEvent::Refused { error: 45, batch: batch(7, 0, 3) });
    scene.log(0, LogEvent::Duplicate { base: 0, last: 0, producer_id: 7 });
    scene.log(0, LogEvent::MarkerRefused { error: 47, producer_id: 7, producer_epoch: 0 });
    assert_eq!(
        scene.odd(tell),
        [
            "broker-0: refuses producer 7 epoch 0 sequence 0 on events-0, OUT_OF_ORDER_SEQUENCE_NUMBER, though \
             it has it at 0",
            "broker-0: takes a batch of producer 7 on events-0 for a copy of 4 to 5, though it appended none there",
            "broker-0: refuses the marker of producer 7 epoch 1 on events-0, INVALID_PRODUCER_EPOCH, though it \
             has it at 1",
        ]
    );
}

#[test]
fn a_last_stable_offset_past_an_open_transaction_is_named() {
    let mut scene = replicated();
    let (topic, partition, leader_epoch) = ("events".to_owned(), 0, 1);
    scene.see(0, Observed::LastStableOffset { topic: topic.clone(), partition, leader_epoch, offset: 0 });
    assert_eq!(scene.odd(tell), [""; 0]);
    scene.see(0, Observed::LastStableOffset { topic, partition, leader_epoch, offset: 1 });
    assert_eq!(
        scene.odd(tell),
        ["broker-0: last stable offset of events-0 is 1, though a transaction of producer 7 is open from 0 on"]
    );
}

#[test]
fn a_follower_that_never_cuts_is_named() {
    let scene = parted();
    let follows = "broker-0: follows broker-1 on events-0 in epoch 2, log end 2";
    assert_eq!(scene.odd(tell), [format!("{follows}, though its log parts from that of broker-1 at 1: to the end")]);
}

#[test]
fn a_recovery_that_forgets_a_transaction_is_named() {
    let mut scene = replicated();
    scene.log(0, LogEvent::Opened { start: 0, end: 1, first_open: Some(0), aborted: None });
    assert_eq!(scene.odd(tell), [""; 0]);
    scene.log(0, LogEvent::Opened { start: 0, end: 1, first_open: None, aborted: None });
    assert_eq!(
        scene.odd(tell),
        [
            "broker-0: opens events-0, log end 1, and knows of no open transaction, though a transaction of producer 7 is \
         open from 0 on"
        ]
    );
}

#[test]
fn a_recovery_that_forgets_what_was_aborted_is_named() {
    let mut scene = replicated();
    scene.log(0, LogEvent::Marker { offset: 1, producer_id: 7, producer_epoch: 1, commit: false });
    scene.log(0, LogEvent::Opened { start: 0, end: 2, first_open: None, aborted: Some(1) });
    assert_eq!(scene.odd(tell), [""; 0]);
    scene.log(0, LogEvent::Opened { start: 0, end: 2, first_open: None, aborted: Some(0) });
    assert_eq!(
        scene.odd(tell),
        ["broker-0: opens events-0, log end 2, and knows of 0 aborted transactions, though 1 are in it"]
    );
}

#[test]
fn a_high_watermark_that_rises_with_too_few_in_sync_is_named() {
    let mut scene = replicated();
    scene.log(0, LogEvent::IsrAnswered { partition_epoch: 2, isr: vec![0] });
    append(&mut scene, 0, 1, batch(7, 0, 1));
    scene.log(0, LogEvent::Flushed { offset: 2 });
    scene.high_watermark(0, 2);
    let min = "though the in-sync set is [0] and min.insync.replicas is 2";
    assert_eq!(scene.odd(tell), [format!("broker-0: high watermark of events-0 rises to 2, {min}")]);
}

#[test]
fn a_log_that_opens_shorter_than_it_was_says_so() {
    let mut scene = replicated();
    scene.log(1, LogEvent::Opened { start: 0, end: 0, first_open: None, aborted: None });
    assert_eq!(scene.all(tell).last().unwrap(), "broker-1: opens events-0, log end 0, which was 1 before");
}

#[test]
fn the_record_s_own_batch_and_marker_are_steps() {
    let mut scene = replicated();
    scene.clue.record = Some(("events".into(), 0, 0));
    scene.log(0, LogEvent::Duplicate { base: 0, last: 0, producer_id: 7 });
    scene.log(0, LogEvent::Marker { offset: 1, producer_id: 7, producer_epoch: 1, commit: false });
    scene.log(0, LogEvent::Marker { offset: 2, producer_id: 7, producer_epoch: 2, commit: false });
    let all = scene.all(tell);
    let of_record: Vec<&str> = all.iter().map(String::as_str).filter(|step| step.contains("producer 7")).collect();
    assert_eq!(
        of_record,
        [
            "broker-0: appends producer 7 epoch 0 sequence 0 to events-0 at 0",
            "broker-0: takes a batch of producer 7 on events-0 for a copy of 0 to 0, its high watermark 1",
            "broker-0: writes the abort marker of producer 7 epoch 1 to events-0 at 1",
        ]
    );
}
