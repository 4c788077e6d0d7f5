//! A workload producer: plain idempotent or transactional.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use client::{Acks, Outcome, Producer, ProducerConfig, Record, Remedy, SendError, TxnError};
use history::{Blob, OpId, OpKind, OpResult};
use protocol::batch::Compression;
use scenarios::plan::{self, Batch, End};

use super::{Progress, Stage};
use crate::recorder::Recording;

/// Between attempts of a call that has to succeed sooner or later.
const RETRY: Duration = Duration::from_millis(200);

pub(super) async fn run(stage: &Rc<Stage>, id: u32, script: &plan::Producer, progress: &Rc<Progress>) {
    progress.open.set(0);
    while progress.batch.get() < script.batches.len() {
        let producer = Producer::new(stage.client(id), config(stage, id, script));
        if script.transactional {
            while let Err(e) = producer.init_transactions(false).await {
                progress.trouble(&e);
                env::time::sleep(RETRY).await;
            }
        }
        // Ends early when this producer can no longer be used.
        drive(stage, id, script, progress, &producer).await;
        producer.flush().await;
    }
    while progress.open.get() > 0 {
        env::time::sleep(Duration::from_millis(100)).await;
    }
}

fn config(stage: &Stage, id: u32, script: &plan::Producer) -> ProducerConfig {
    ProducerConfig {
        acks: match script.acks {
            plan::Acks::None => Acks::None,
            plan::Acks::Leader => Acks::Leader,
            plan::Acks::All => Acks::All,
        },
        idempotent: script.idempotent,
        transactional_id: script.transactional.then(|| format!("workload-{id}")),
        ..from_knobs(stage)
    }
}

/// Of a transactional producer by this name.
pub(super) fn transactional_config(stage: &Stage, id: String) -> ProducerConfig {
    ProducerConfig { transactional_id: Some(id), ..from_knobs(stage) }
}

fn from_knobs(stage: &Stage) -> ProducerConfig {
    let knobs = &stage.knobs;
    ProducerConfig {
        two_phase: false,
        txn_timeout: Duration::from_millis(knobs.transaction_timeout_ms),
        delivery_timeout: Duration::from_millis(knobs.delivery_timeout_ms),
        linger: Duration::from_millis(knobs.linger_ms),
        batch_bytes: knobs.batch_bytes as usize,
        max_in_flight: knobs.max_in_flight as usize,
        compression: match knobs.compression {
            plan::Compression::None => Compression::None,
            plan::Compression::Gzip => Compression::Gzip,
            plan::Compression::Snappy => Compression::Snappy,
            plan::Compression::Lz4 => Compression::Lz4,
            plan::Compression::Zstd => Compression::Zstd,
        },
        ..ProducerConfig::default()
    }
}

/// Goes through the batches until the end or until the producer is done for.
async fn drive(stage: &Rc<Stage>, id: u32, script: &plan::Producer, progress: &Rc<Progress>, producer: &Producer) {
    while let Some(batch) = script.batches.get(progress.batch.get()) {
        env::time::sleep(stage.until(batch.at_ms)).await;
        progress.batch.set(progress.batch.get() + 1);
        match batch.transaction {
            None => plain(stage, id, script, progress, producer, batch).await,
            Some(transaction) => {
                if !transactional(stage, id, script, progress, producer, batch, transaction).await {
                    return;
                }
            }
        }
    }
}

/// Sends the batch; a task waits for the answers, so that the next batch need not.
async fn plain(
    stage: &Rc<Stage>,
    id: u32,
    script: &plan::Producer,
    progress: &Rc<Progress>,
    producer: &Producer,
    batch: &Batch,
) {
    let mut deliveries = Vec::with_capacity(batch.records.len());
    for record in &batch.records {
        let (op, sending) = invoke(&stage.recording, id, script, record, None);
        progress.open.set(progress.open.get() + 1);
        deliveries.push((op, producer.send(&script.topic, record.partition, sending).await));
    }
    let (recording, progress) = (stage.recording.clone(), Rc::clone(progress));
    env::task::spawn(async move {
        for (op, delivery) in deliveries {
            let result = delivery.await;
            if let Err(e) = &result {
                progress.trouble(e);
            }
            recording.complete(op, sent(result.map(|m| m.offset)));
            progress.open.set(progress.open.get() - 1);
        }
    });
}

/// One transaction, whole. False if the producer cannot be used any more.
async fn transactional(
    stage: &Rc<Stage>,
    id: u32,
    script: &plan::Producer,
    progress: &Rc<Progress>,
    producer: &Producer,
    batch: &Batch,
    transaction: plan::Transaction,
) -> bool {
    let recording = &stage.recording;
    while let Err(e) = producer.begin() {
        progress.trouble(&e);
        if e.remedy == Remedy::Close {
            // Nothing of this batch was asked for: the next producer begins with it.
            progress.batch.set(progress.batch.get() - 1);
            return false;
        }
        env::time::sleep(RETRY).await;
    }
    let txn = Some(transaction.id);
    let mut deliveries = Vec::with_capacity(batch.records.len());
    for record in &batch.records {
        let (op, sending) = invoke(recording, id, script, record, txn);
        deliveries.push((op, producer.send(&script.topic, record.partition, sending).await));
    }
    let all_sent = Rc::new(RefCell::new(true));
    producer.flush().await;
    for (op, delivery) in deliveries {
        let result = delivery.await;
        if let Err(e) = &result {
            progress.trouble(e);
            *all_sent.borrow_mut() = false;
        }
        recording.complete(op, sent(result.map(|m| m.offset)));
    }
    let commit = transaction.end == End::Commit && *all_sent.borrow();
    let op = recording.invoke(id, transaction.n, OpKind::EndTxn { txn: transaction.id, commit });
    let mut unknown = false;
    loop {
        let result = if commit { producer.commit().await } else { producer.abort().await };
        match result {
            Ok(()) => {
                recording.complete(op, OpResult::Ok { offset: None });
                return true;
            }
            Err(e) => {
                progress.trouble(&e);
                unknown |= e.outcome == Outcome::Unknown;
                match e.remedy {
                    Remedy::Retry => env::time::sleep(RETRY).await,
                    Remedy::Abort => {
                        recording.complete(op, ended(&e, unknown));
                        return abort(progress, producer).await;
                    }
                    Remedy::Close | Remedy::Misuse => {
                        recording.complete(op, ended(&e, unknown));
                        return false;
                    }
                }
            }
        }
    }
}

/// Brings a failed transaction to its end. False if the producer cannot be used any more.
async fn abort(progress: &Progress, producer: &Producer) -> bool {
    loop {
        match producer.abort().await {
            Ok(()) => return true,
            Err(e) => {
                progress.trouble(&e);
                if e.remedy != Remedy::Retry {
                    return false;
                }
                env::time::sleep(RETRY).await;
            }
        }
    }
}

/// Records the operation, and gives what is to be sent for it.
fn invoke(
    recording: &Recording,
    client: u32,
    script: &plan::Producer,
    record: &plan::Record,
    txn: Option<u64>,
) -> (OpId, Record) {
    let sending = kafka(client, record, txn);
    let acks = match script.acks {
        plan::Acks::None => 0,
        plan::Acks::Leader => 1,
        plan::Acks::All => -1,
    };
    let kind = OpKind::Produce {
        topic: script.topic.clone(),
        partition: record.partition,
        key: sending.key.clone().map(Blob),
        value: sending.value.clone().map(Blob),
        acks,
        idempotent: script.idempotent,
        txn,
    };
    (recording.invoke(client, record.n, kind), sending)
}

fn kafka(client: u32, record: &plan::Record, txn: Option<u64>) -> Record {
    let mut headers = vec![header("op.client", u64::from(client)), header("op.n", record.n)];
    headers.extend(txn.map(|t| header("op.txn", t)));
    Record {
        offset: 0,
        timestamp: record.timestamp,
        key: record.key.as_ref().and_then(plan::Payload::bytes).map(Bytes::from),
        value: record.value.bytes().map(Bytes::from),
        headers,
    }
}

/// A header with a number.
pub(super) fn header(name: &'static str, value: u64) -> (Bytes, Option<Bytes>) {
    (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value.to_string())))
}

/// Rule 20: acknowledged, failed for certain, or unknown.
pub(super) fn sent(result: Result<Option<i64>, SendError>) -> OpResult {
    match result {
        Ok(offset) => OpResult::Ok { offset },
        Err(e) if e.outcome == Outcome::Failed => OpResult::Failed { code: e.to_string() },
        Err(e) => OpResult::Unknown { reason: Some(e.to_string()) },
    }
}

pub(super) fn ended(e: &TxnError, unknown: bool) -> OpResult {
    match unknown || e.outcome == Outcome::Unknown {
        true => OpResult::Unknown { reason: Some(e.to_string()) },
        false => OpResult::Failed { code: e.to_string() },
    }
}
