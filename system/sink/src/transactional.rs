//! The exactly-once writer: one epoch, one transaction; two transactional ids in turn.
//!
//! ```text
//!   slot 1   ├─ epoch 1 ─┤prepared ··· commit├─ epoch 3 ─┤prepared ··· commit├
//!   slot 0               ├───────── epoch 2 ─────────────┤prepared ··· commit├─ epoch 4 …
//! ```
//! Epoch n + 2 opens its slot only after n committed, which the coordinator sees to. A prepared transaction has no
//! time-out (KIP-939), so an outage of any length between pre-commit and commit loses nothing (FLINK-39218).

use std::time::Duration;

use client::{Client, Completion, Producer, ProducerConfig, ProducerIdEpoch, Remedy};

use crate::outbox::Outbox;
use crate::router::Router;
use crate::writer::{Pending, Prepared, SinkError, SinkRecord, SinkWriter};

pub struct Transactional {
    client: Client,
    topics: Vec<String>,
    slots: [Producer; 2],
    router: Router,
    outbox: Outbox,
    /// The epoch that takes records.
    open: Option<u64>,
}

impl Transactional {
    /// `id`: `<job>-<task>`, the same for every attempt of the task and of no other: it is what fences.
    pub fn new(client: Client, id: &str, topics: Vec<String>, delivery_timeout: Duration) -> Self {
        let slot = |n: u8| {
            let config = ProducerConfig {
                two_phase: true,
                delivery_timeout,
                ..ProducerConfig::transactional(format!("{id}-{n}"))
            };
            Producer::new(client.clone(), config)
        };
        let slots = [slot(0), slot(1)];
        Self { client, topics, slots, router: Router::default(), outbox: Outbox::default(), open: None }
    }

    fn slot(&self, n: u64) -> &Producer {
        &self.slots[usize::from(slot_of(n))]
    }

    /// The producer of the open epoch, which must be `n` if it is given.
    fn producer(&self, n: Option<u64>) -> Result<Producer, SinkError> {
        match self.open {
            Some(open) if n.is_none_or(|n| n == open) => Ok(self.slot(open).clone()),
            open => Err(SinkError::new("write", format!("epoch {open:?} is open, {n:?} was meant"))),
        }
    }
}

fn slot_of(n: u64) -> u8 {
    (n % 2) as u8
}

impl SinkWriter for Transactional {
    fn recover(&mut self, restored: Option<Prepared>) -> Pending<'_, ()> {
        Box::pin(async move {
            for (slot, producer) in self.slots.iter().enumerate() {
                let keep = restored.filter(|p| usize::from(p.slot) == slot);
                // Always kept first, and aborted by name if it is not wanted, never by the fencing call itself:
                // 1. the call's bytes are held up, it times out; 2. its repetition succeeds, the slot opens and prepares
                // epoch n, checkpoint n completes; 3. the first call arrives. One that aborts would take epoch n with
                // it; one that keeps only fences this attempt, and the next one commits what checkpoint n holds.
                let initialized =
                    producer.init_transactions(true).await.map_err(|e| SinkError::new("fence earlier attempts", e))?;
                // Ongoing: the checkpoint's own transaction, to be committed; or another that opened the slot, before or
                // after it, to be aborted. None: it was ended before.
                if initialized.ongoing.is_some() {
                    let nothing = ProducerIdEpoch { producer_id: -1, epoch: -1 };
                    let expected = keep
                        .map_or(nothing, |p| ProducerIdEpoch { producer_id: p.producer_id, epoch: p.producer_epoch });
                    let done = producer
                        .complete_prepared(expected)
                        .await
                        .map_err(|e| SinkError::new("end the transaction of an earlier attempt", e))?;
                    env::sometimes!(done == Completion::Committed, "a restored transaction was committed");
                    env::sometimes!(done == Completion::Aborted, "a lingering transaction was aborted");
                }
            }
            self.router = Router::discover(&self.client, &self.topics).await?;
            Ok(())
        })
    }

    fn begin(&mut self, n: u64) -> Pending<'_, (i64, i16)> {
        Box::pin(async move {
            let producer = self.slot(n);
            producer.begin().map_err(|e| SinkError::new("begin a transaction", e))?;
            let identity = producer.current().ok_or_else(|| SinkError::new("begin a transaction", "no producer id"))?;
            self.open = Some(n);
            Ok((identity.producer_id, identity.epoch))
        })
    }

    fn write<'a>(&'a mut self, topic: &'a str, record: SinkRecord) -> Pending<'a, ()> {
        Box::pin(async move {
            let producer = self.producer(None)?;
            self.outbox.send(&producer, &mut self.router, topic, record).await
        })
    }

    fn pre_commit(&mut self, n: u64) -> Pending<'_, Option<Prepared>> {
        Box::pin(async move {
            let producer = self.producer(Some(n))?;
            let identity = producer.prepare().await.map_err(|e| SinkError::new("prepare", e))?;
            self.outbox.settle().await?;
            self.open = None;
            let ProducerIdEpoch { producer_id, epoch: producer_epoch } = identity;
            Ok(Some(Prepared { slot: slot_of(n), producer_id, producer_epoch }))
        })
    }

    fn commit(&mut self, n: u64) -> Pending<'static, ()> {
        let producer = self.slot(n).clone();
        Box::pin(async move {
            // Repeated for as long as the attempt lives: the checkpoint is complete, so nothing else may happen to this
            // transaction (FLINK-23896).
            loop {
                match producer.commit().await {
                    Ok(()) => return Ok(()),
                    Err(e) if e.remedy == Remedy::Retry => {
                        tracing::warn!(epoch = n, error = %e, "commit is repeated");
                    }
                    Err(e) => return Err(SinkError::new("commit", e)),
                }
            }
        })
    }
}
