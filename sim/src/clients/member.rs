//! A workload member of a consumer group. It polls, works and commits: by itself, after each poll, or in transactions that
//! copy what it read to another topic, each record with its place of origin in the header `copy.of`.
//!
//! Every poll, commit and copy is an operation of the history. A place that a consumer's position is set to anew (an
//! assignment, a transaction that was aborted) is one too, so that checks tell it from a skip.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use client::group::assignor::Assignor;
use client::{
    CommittedOffset, ConsumerConfig, FetchResult, GroupConfig, GroupConsumer, GroupProtocol, Isolation, Outcome,
    Polled, Producer, Record, Remedy, Reset, TopicPartition,
};
use env::clock::Instant;
use history::{Blob, Observed, OpId, OpKind, OpResult, PolledPartition, PolledRecord};
use scenarios::plan::{self, Commit, Stay};

use super::producer::{ended, header, sent, transactional_config};
use super::{Progress, Stage};

/// A poll that brought nothing is looked at this often.
const TICK: Duration = Duration::from_millis(500);
/// How long the work on a poll's records takes at most, where it takes long.
const WORK_MS: u64 = 400;
/// Between attempts of a call that has to succeed sooner or later.
const RETRY: Duration = Duration::from_millis(200);
/// A member that commits what each poll brought commits the same again when it polled nothing for this long, as one that
/// commits after every poll does, and as automatic commits do by default:
///   1. It commits 1; the request is held up on its way. After its time-out it is repeated, on a new connection, and stored.
///   2. It commits 2, and is acknowledged.
///   3. The first request arrives. Nothing tells the coordinator that it is older: 1 stands, and no record comes any more.
const COMMIT_AGAIN: Duration = Duration::from_secs(5);

pub(super) async fn run(stage: &Rc<Stage>, id: u32, script: &plan::Member, progress: &Rc<Progress>) {
    let chance = RefCell::new(env::rng::stream("workload.work"));
    while let Some(stay) = script.stays.get(progress.batch.get()) {
        env::time::sleep(stage.until(stay.from_ms)).await;
        while is_on(stage, stay) {
            let member = Member::new(stage, id, script, progress, &chance);
            member.stay(stay).await;
        }
        progress.batch.set(progress.batch.get() + 1);
    }
}

/// Whether the stretch has not ended yet.
fn is_on(stage: &Stage, stay: &Stay) -> bool {
    !stage.stop.get() && stay.until_ms.is_none_or(|until| !stage.until(until).is_zero())
}

/// How a piece of work ended.
enum Step {
    On,
    /// This member, or its producer, is of no use any more: it begins anew, from the group's offsets.
    Anew,
}

/// One life of a member: from joining to leaving.
struct Member<'a> {
    stage: &'a Rc<Stage>,
    id: u32,
    script: &'a plan::Member,
    progress: &'a Rc<Progress>,
    chance: &'a RefCell<seed::Rng>,
    consumer: GroupConsumer,
    producer: Option<Producer>,
    /// What this life committed last.
    committed: RefCell<BTreeMap<TopicPartition, i64>>,
    committed_at: Cell<Instant>,
}

impl<'a> Member<'a> {
    fn new(
        stage: &'a Rc<Stage>,
        id: u32,
        script: &'a plan::Member,
        progress: &'a Rc<Progress>,
        chance: &'a RefCell<seed::Rng>,
    ) -> Self {
        let (session_timeout, heartbeat_interval) = stage.group;
        let assignor = match script.protocol {
            plan::GroupProtocol::Range => Assignor::Range,
            plan::GroupProtocol::RoundRobin => Assignor::RoundRobin,
            plan::GroupProtocol::CooperativeSticky | plan::GroupProtocol::Consumer => Assignor::CooperativeSticky,
        };
        let config = GroupConfig {
            protocol: match script.protocol {
                plan::GroupProtocol::Consumer => GroupProtocol::Consumer,
                _ => GroupProtocol::Classic,
            },
            assignors: vec![assignor],
            instance_id: script.instance_id.clone(),
            session_timeout,
            heartbeat_interval,
            rebalance_timeout: session_timeout * 2,
            max_poll_interval: Duration::from_secs(30),
            reset: Reset::Earliest,
            auto_commit: match script.commit {
                Commit::Auto { every_ms } => Some(Duration::from_millis(every_ms)),
                _ => None,
            },
            consumer: ConsumerConfig {
                isolation: Isolation::ReadCommitted,
                max_wait: Duration::from_millis(stage.knobs.fetch_max_wait_ms),
                ..ConsumerConfig::default()
            },
            ..GroupConfig::new(script.group.clone(), &[&script.topic])
        };
        let member = Self {
            consumer: GroupConsumer::new(stage.client(id), config),
            producer: matches!(script.commit, Commit::Transaction { .. })
                .then(|| Producer::new(stage.client(id), transactional_config(stage, format!("member-{id}")))),
            committed: RefCell::default(),
            committed_at: Cell::new(env::clock::now()),
            stage,
            id,
            script,
            progress,
            chance,
        };
        member.event(OpKind::Subscribe { topics: vec![script.topic.clone()] });
        member
    }

    /// Works until the stretch ends, and leaves; or until this life is of no use, and is gone.
    async fn stay(self, stay: &Stay) {
        if let Some(producer) = &self.producer {
            while let Err(e) = producer.init_transactions(false).await {
                self.progress.trouble(&e);
                if !is_on(self.stage, stay) {
                    return;
                }
                env::time::sleep(RETRY).await;
            }
        }
        while is_on(self.stage, stay) {
            match self.step().await {
                Step::On => {}
                // Gone without a word: its session ends by time-out.
                Step::Anew => return env::time::sleep(RETRY).await,
            }
        }
        if let Err(e) = self.consumer.close().await {
            self.progress.trouble(&e);
        }
    }

    /// An operation that is answered at once.
    fn event(&self, kind: OpKind) {
        let recording = &self.stage.recording;
        let op = recording.invoke(self.id, self.progress.number(), kind);
        recording.complete(op, OpResult::Ok { offset: None });
    }

    fn rebalanced(&self, owned: BTreeSet<TopicPartition>, lost: bool) {
        let partitions: Vec<_> = owned.iter().map(place).collect();
        self.event(OpKind::Rebalance { assigned: partitions.clone() });
        // Epochs of a KIP-848 member do not say what it has: its coordinator tells that.
        if self.script.protocol != plan::GroupProtocol::Consumer {
            let who = self.consumer.metadata();
            let (group, member, generation) = (who.group_id, who.member_id, who.generation);
            self.stage.recording.observe(self.id, Observed::Assigned { group, member, generation, partitions, lost });
        }
    }

    /// One poll and what follows from it.
    async fn step(&self) -> Step {
        let recording = &self.stage.recording;
        let txn = self.producer.as_ref().map(|_| {
            let n = self.progress.next_txn.replace(self.progress.next_txn.get() + 1);
            u64::from(self.id + 1) << 32 | n
        });
        let poll = recording.invoke(self.id, self.progress.number(), OpKind::Poll { read_committed: true, txn });
        let polled = env::select! {
            polled = self.consumer.poll() => Some(polled),
            () = env::time::sleep(TICK) => None,
        };
        let results = match polled {
            Some(Ok(Polled::Records(results))) => results,
            Some(Ok(change)) => {
                recording.complete(poll, OpResult::Polled { reads: Vec::new() });
                let lost = matches!(change, Polled::Lost(_));
                if let Polled::Revoked(gone) | Polled::Lost(gone) = change {
                    self.committed.borrow_mut().retain(|tp, _| !gone.contains(tp));
                }
                self.rebalanced(self.consumer.assignment(), lost);
                return Step::On;
            }
            Some(Err(e)) => {
                recording.complete(poll, OpResult::Failed { code: e.to_string() });
                self.progress.trouble(&e);
                return Step::Anew;
            }
            None => {
                recording.complete(poll, OpResult::Polled { reads: Vec::new() });
                self.commit_again().await;
                return Step::On;
            }
        };
        let results: Vec<_> = results.into_iter().filter(|r| r.error.is_none()).collect();
        let known = self.consumer.positions();
        let moved = |r: &FetchResult| {
            let at = known.get(&r.partition)?.clone();
            (self.committed.borrow().get(&r.partition) != Some(&at.offset)).then(|| (r.partition.clone(), at))
        };
        let offsets: BTreeMap<_, _> = results.iter().filter_map(moved).collect();
        if !offsets.is_empty() {
            self.work().await;
        }
        recording.complete(poll, OpResult::Polled { reads: results.iter().map(read).collect() });
        if self.stage.stop.get() {
            // Members leave by now, and those that stay are given what they had: nothing is begun any more.
            return Step::On;
        }
        match (&self.script.commit, &self.producer, txn) {
            (Commit::Each, ..) if !offsets.is_empty() => {
                self.commit(&offsets).await;
                Step::On
            }
            (Commit::Transaction { to }, Some(producer), Some(txn)) if !offsets.is_empty() => {
                self.copy(producer, to, txn, &results, &offsets).await
            }
            _ => {
                self.commit_again().await;
                Step::On
            }
        }
    }

    /// On what a poll brought: only then it counts as read. A crash takes it all back.
    async fn work(&self) {
        let ms = {
            let mut chance = self.chance.borrow_mut();
            if chance.chance(1, 4) { chance.range(1, WORK_MS) } else { 0 }
        };
        if ms > 0 {
            env::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Commits what was committed before, if that is long ago.
    async fn commit_again(&self) {
        let positions = self.consumer.positions();
        let due = self.committed_at.get() + COMMIT_AGAIN <= env::clock::now();
        if matches!(self.script.commit, Commit::Each) && due && !positions.is_empty() && !self.stage.stop.get() {
            self.commit(&positions).await;
        }
    }

    async fn commit(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) {
        self.committed_at.set(env::clock::now());
        let recording = &self.stage.recording;
        let ops = self.invoke_commits(offsets);
        let result = self.consumer.commit(offsets).await;
        match &result {
            Ok(()) => self.committed(offsets),
            Err(e) => self.progress.trouble(e),
        }
        for op in ops {
            recording.complete(
                op,
                match &result {
                    Ok(()) => OpResult::Ok { offset: None },
                    Err(e) if e.outcome == Outcome::Failed => OpResult::Failed { code: e.to_string() },
                    Err(e) => OpResult::Unknown { reason: Some(e.to_string()) },
                },
            );
        }
    }

    fn invoke_commits(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> Vec<OpId> {
        let invoke = |(tp, at): (&TopicPartition, &CommittedOffset)| {
            let (group, topic) = (self.script.group.clone(), tp.topic.clone());
            let kind = OpKind::CommitOffset { group, topic, partition: tp.partition, offset: at.offset };
            self.stage.recording.invoke(self.id, self.progress.number(), kind)
        };
        offsets.iter().map(invoke).collect()
    }

    /// Copies what a poll brought, and commits its offsets with the copies.
    async fn copy(
        &self,
        producer: &Producer,
        to: &str,
        txn: u64,
        results: &[FetchResult],
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Step {
        let recording = &self.stage.recording;
        while let Err(e) = producer.begin() {
            self.progress.trouble(&e);
            if e.remedy != Remedy::Retry {
                return Step::Anew;
            }
            env::time::sleep(RETRY).await;
        }
        let mut deliveries = Vec::new();
        for result in results {
            for record in &result.records {
                let n = self.progress.number();
                let partition = result.partition.partition % self.stage.partitions_of(to).max(1);
                let copy = self.copy_of(&result.partition, record, n, txn);
                let kind = OpKind::Produce {
                    topic: to.to_owned(),
                    partition,
                    key: copy.key.clone().map(Blob),
                    value: copy.value.clone().map(Blob),
                    acks: -1,
                    idempotent: true,
                    txn: Some(txn),
                };
                let op = recording.invoke(self.id, n, kind);
                deliveries.push((op, producer.send(to, partition, copy).await));
            }
        }
        producer.flush().await;
        let mut fine = true;
        for (op, delivery) in deliveries {
            let result = delivery.await;
            if let Err(e) = &result {
                self.progress.trouble(e);
                fine = false;
            }
            recording.complete(op, sent(result.map(|m| m.offset)));
        }
        let commits = self.invoke_commits(offsets);
        while fine {
            match producer.send_offsets(self.consumer.metadata(), offsets).await {
                Ok(()) => break,
                Err(e) => {
                    self.progress.trouble(&e);
                    match e.remedy {
                        Remedy::Retry => env::time::sleep(RETRY).await,
                        _ => fine = false,
                    }
                }
            }
        }
        let op = recording.invoke(self.id, self.progress.number(), OpKind::EndTxn { txn, commit: fine });
        let mut unknown = false;
        loop {
            let result = if fine { producer.commit().await } else { producer.abort().await };
            let Err(e) = result else {
                recording.complete(op, OpResult::Ok { offset: None });
                let failed = || OpResult::Failed { code: "the transaction was aborted".into() };
                commits
                    .iter()
                    .for_each(|c| recording.complete(*c, if fine { OpResult::Ok { offset: None } } else { failed() }));
                break;
            };
            self.progress.trouble(&e);
            unknown |= e.outcome == Outcome::Unknown;
            if e.remedy == Remedy::Retry {
                env::time::sleep(RETRY).await;
                continue;
            }
            recording.complete(op, ended(&e, unknown));
            commits.iter().for_each(|c| recording.complete(*c, ended(&e, unknown)));
            return Step::Anew;
        }
        match fine {
            true => self.committed(offsets),
            false => self.go_back(results),
        }
        Step::On
    }

    fn committed(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) {
        self.committed.borrow_mut().extend(offsets.iter().map(|(tp, at)| (tp.clone(), at.offset)));
    }

    /// To where the poll began: what it brought was not committed.
    fn go_back(&self, results: &[FetchResult]) {
        let mut at: BTreeMap<TopicPartition, i64> =
            self.consumer.positions().into_iter().map(|(tp, position)| (tp, position.offset)).collect();
        for result in results {
            let Some(first) = result.records.first() else { continue };
            if self.consumer.seek(&result.partition, first.offset) {
                at.insert(result.partition.clone(), first.offset);
            }
        }
        let owned = self.consumer.assignment();
        let partitions = owned.iter().map(|tp| (place(tp), at.get(tp).copied().unwrap_or(0))).collect();
        self.event(OpKind::Assign { partitions });
    }

    fn copy_of(&self, from: &TopicPartition, record: &Record, n: u64, txn: u64) -> Record {
        let origin = format!("{}:{}", from.partition, record.offset);
        let headers = vec![
            header("op.client", u64::from(self.id)),
            header("op.n", n),
            header("op.txn", txn),
            (Bytes::from_static(history::COPY_OF.as_bytes()), Some(Bytes::from(origin))),
        ];
        Record { offset: 0, headers, ..record.clone() }
    }
}

fn place(tp: &TopicPartition) -> history::TopicPartition {
    history::TopicPartition::new(tp.topic.clone(), tp.partition)
}

/// What a poll brought of one partition, each record by the operation that wrote it.
fn read(result: &FetchResult) -> PolledPartition {
    let number = |record: &Record, name: &str| {
        let value = record.headers.iter().find(|(key, _)| key == name.as_bytes())?.1.as_ref()?;
        std::str::from_utf8(value).ok()?.parse::<u64>().ok()
    };
    let records = result.records.iter().filter_map(|record| {
        let client = u32::try_from(number(record, "op.client")?).ok()?;
        Some(PolledRecord { offset: record.offset, client, n: number(record, "op.n")? })
    });
    PolledPartition {
        topic: result.partition.topic.clone(),
        partition: result.partition.partition,
        records: records.collect(),
    }
}
