//! Transactional writers, and what they were told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use client::{
    CommittedOffset, Completion, Outcome, Producer, ProducerConfig, ProducerIdEpoch, Remedy, TopicPartition, TxnError,
};
use protocol::batch::Record;

use super::TRANSACTIONS;
use super::cluster::{PARTITIONS, TOPICS, a_client};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One producer for as long as it works.
    Plain,
    /// A new producer of the same id every few transactions; the one before tries to go on. Some open a transaction under
    /// another id and are never heard of again.
    Restarting,
    /// Prepares, and may come back as another producer to complete.
    TwoPhase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Committed,
    Aborted,
    Unknown,
}

/// One transaction of one writer.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub places: BTreeSet<TopicPartition>,
    pub end: End,
}

#[derive(Default, Debug)]
struct Ledger {
    transactions: BTreeMap<(&'static str, i64), Transaction>,
    done: usize,
}

/// What all writers were told.
#[derive(Clone, Default)]
pub struct Told(Rc<RefCell<Ledger>>);

impl Told {
    pub fn done(&self) -> usize {
        self.0.borrow().done
    }

    pub fn transactions(&self) -> BTreeMap<(&'static str, i64), Transaction> {
        self.0.borrow().transactions.clone()
    }

    pub fn counts(&self) -> (usize, usize, usize) {
        let ledger = self.0.borrow();
        let count = |end| ledger.transactions.values().filter(|t| t.end == end).count();
        (count(End::Committed), count(End::Aborted), count(End::Unknown))
    }
}

pub fn group(writer: &str) -> String {
    format!("group-{writer}")
}

/// The place whose offset is committed: that of the transaction's number.
pub fn offset_place() -> TopicPartition {
    TopicPartition::new("a", 0)
}

fn record(text: String) -> Record {
    Record { value: Some(text.into()), ..Record::default() }
}

async fn pause(ms: u64) {
    env::time::sleep(Duration::from_millis(ms)).await;
}

fn config(id: &str, kind: Kind) -> ProducerConfig {
    ProducerConfig {
        two_phase: kind == Kind::TwoPhase,
        txn_timeout: Duration::from_secs(8),
        delivery_timeout: Duration::from_secs(20),
        ..ProducerConfig::transactional(id)
    }
}

pub async fn run(name: &'static str, kind: Kind, seed: u64, told: Told) {
    let mut rng = seed::stream(seed, "writer", &[name.len() as u64, u64::from(name.as_bytes()[0])]);
    let mut writer = Writer { name, kind, producer: None };
    for n in 1..=TRANSACTIONS {
        let all = TOPICS.iter().flat_map(|t| (0..PARTITIONS).map(|p| TopicPartition::new(*t, p)));
        let mut places: BTreeSet<TopicPartition> = all.filter(|_| rng.chance(1, 2)).collect();
        places.insert(TopicPartition::new("b", (n % i64::from(PARTITIONS)) as i32));
        let commit = !rng.chance(1, 4);
        let end = match kind {
            Kind::TwoPhase => writer.two_phase(n, &places, rng.chance(1, 2)).await,
            _ => writer.one_phase(n, &places, commit).await,
        };
        told.0.borrow_mut().transactions.insert((name, n), Transaction { places, end });
        if kind == Kind::Restarting && rng.chance(1, 3) {
            writer.replace(n).await;
        }
        if kind == Kind::Restarting && rng.chance(1, 4) {
            abandon(name, n).await;
        }
        pause(rng.range(0, 1_200)).await;
    }
    told.0.borrow_mut().done += 1;
}

/// Opens a transaction that nobody will end but its time-out.
async fn abandon(name: &str, n: i64) {
    let id = format!("lost-{name}-{n}");
    let producer = Producer::new(a_client(), config(&id, Kind::Plain));
    if producer.init_transactions(false).await.is_err() || producer.begin().is_err() {
        return;
    }
    let one = producer.send("a", 1, record(format!("lost-{name}-{n}"))).await;
    let two = producer.send("b", 2, record(format!("lost-{name}-{n}"))).await;
    let _ = (one.await, two.await);
}

struct Writer {
    name: &'static str,
    kind: Kind,
    producer: Option<Producer>,
}

impl Writer {
    /// A producer that is ready to begin; a new one if there is none.
    async fn producer(&mut self) -> Producer {
        if let Some(producer) = &self.producer {
            return producer.clone();
        }
        loop {
            let producer = Producer::new(a_client(), config(self.name, self.kind));
            if producer.init_transactions(false).await.is_ok() {
                self.producer = Some(producer.clone());
                return producer;
            }
            pause(100).await;
        }
    }

    /// A successor takes the id over. What the one before does after that has no effect.
    async fn replace(&mut self, n: i64) {
        let Some(zombie) = self.producer.take() else { return };
        let name = self.name;
        let open = zombie.begin().is_ok();
        if open {
            let _ = zombie.send("a", 2, record(format!("zombie-{name}-{n}"))).await.await;
        }
        self.producer().await;
        if !open {
            return;
        }
        let late = zombie.send("b", 0, record(format!("zombie-{name}-{n}"))).await.await;
        let committed = zombie.commit().await;
        assert!(committed.is_err(), "a fenced producer committed; its late record: {late:?}");
    }

    /// Records in all places and the group's offset; whether all of it is acknowledged.
    async fn write(&self, producer: &Producer, n: i64, places: &BTreeSet<TopicPartition>) -> bool {
        let mut deliveries = Vec::new();
        for place in places {
            deliveries.push(producer.send(&place.topic, place.partition, record(format!("{}-{n}", self.name))).await);
        }
        let offsets = BTreeMap::from([(offset_place(), CommittedOffset::new(n))]);
        let mut written = false;
        for _ in 0..3 {
            match producer.send_offsets(group(self.name).as_str(), &offsets).await {
                Ok(()) => {
                    written = true;
                    break;
                }
                Err(e) if e.remedy == Remedy::Retry => pause(100).await,
                Err(_) => break,
            }
        }
        producer.flush().await;
        for delivery in deliveries {
            written &= delivery.await.is_ok();
        }
        written
    }

    async fn one_phase(&mut self, n: i64, places: &BTreeSet<TopicPartition>, commit: bool) -> End {
        let producer = self.producer().await;
        if producer.begin().is_err() {
            self.producer = None;
            return End::Aborted;
        }
        let written = self.write(&producer, n, places).await;
        if written && commit {
            match until_answered(async || producer.commit().await).await {
                Ok(()) => return End::Committed,
                Err(e) if e.remedy == Remedy::Abort && e.outcome == Outcome::Failed => {}
                Err(e) => {
                    self.producer = None;
                    return if e.outcome == Outcome::Unknown { End::Unknown } else { End::Aborted };
                }
            }
        }
        if until_answered(async || producer.abort().await).await.is_err() {
            self.producer = None;
        }
        End::Aborted
    }

    async fn two_phase(&mut self, n: i64, places: &BTreeSet<TopicPartition>, restart: bool) -> End {
        let producer = self.producer().await;
        if producer.begin().is_err() {
            self.producer = None;
            return End::Aborted;
        }
        let prepared = if self.write(&producer, n, places).await { producer.prepare().await.ok() } else { None };
        // After a refusal, what is prepared is there for whoever comes next.
        if prepared.is_some() && !restart && until_answered(async || producer.commit().await).await.is_ok() {
            return End::Committed;
        }
        drop(producer);
        self.producer = None;
        // Nobody: what is found then is not what was prepared.
        let expected = prepared.unwrap_or(ProducerIdEpoch { producer_id: -1, epoch: -1 });
        loop {
            let next = Producer::new(a_client(), config(self.name, self.kind));
            if next.init_transactions(true).await.is_err() {
                pause(100).await;
                continue;
            }
            let completed = until_answered(async || next.complete_prepared(expected).await).await;
            let Ok(completed) = completed else { continue };
            self.producer = Some(next);
            return match (completed, prepared) {
                (Completion::Committed, Some(_)) => End::Committed,
                // Committed before by a call whose answer was lost: prepared transactions end no other way.
                (Completion::NothingOngoing, Some(_)) => End::Committed,
                (Completion::Aborted, Some(_)) => panic!("{}-{n} was prepared, and is not there", self.name),
                (Completion::Aborted | Completion::NothingOngoing, None) => End::Aborted,
                (Completion::Committed, None) => panic!("{}-{n} was not prepared", self.name),
            };
        }
    }
}

/// Again as long as that is the remedy.
async fn until_answered<T>(mut call: impl AsyncFnMut() -> Result<T, TxnError>) -> Result<T, TxnError> {
    let mut outcome = Outcome::Failed;
    loop {
        match call().await {
            Err(e) if e.remedy == Remedy::Retry => {
                outcome = outcome.and(e.outcome);
                pause(50).await;
            }
            Err(e) => return Err(TxnError { outcome: outcome.and(e.outcome), ..e }),
            Ok(done) => return Ok(done),
        }
    }
}
