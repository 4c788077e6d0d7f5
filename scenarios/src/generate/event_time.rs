//! Workload of the processor scenarios: JSON events with a key, an event time and a value, in arrival order, with the
//! event-time disasters of the plan woven in.

use std::collections::BTreeSet;

use super::{stream, topic, unique_value};
use crate::plan::{Acks, Batch, Client, ClientRole, End, Family, Payload, Plan, Producer, Record, Transaction, Twist};

/// Origin of generated event times: 2023-11-14T22:13:20Z.
pub const ORIGIN_MS: i64 = 1_700_000_000_000;

/// The job of a generated scenario.
#[derive(Clone, Copy, Debug)]
pub struct JobText {
    pub window_ms: u64,
    pub out_of_orderness_ms: u64,
    pub idle_after_ms: u64,
    pub allowed_lateness_ms: u64,
    pub decisions_topic: bool,
    /// Without it rows are written as they are made, outside transactions.
    pub exactly_once: bool,
}

impl JobText {
    /// The job file.
    pub fn toml(&self) -> String {
        let delivery = if self.exactly_once { "exactly-once" } else { "at-least-once" };
        let decisions = if self.decisions_topic { "decisions_topic = \"decisions\"\n" } else { "" };
        format!(
            r#"name = "totals"

[source]
topic = "events"
format = "json"
key = "k"
event_time = "t"
value = "v"

[watermark]
out_of_orderness = "{}ms"
idle_after = "{}ms"

[window]
type = "tumbling"
size = "{}ms"
allowed_lateness = "{}ms"
accumulation = "accumulating"

[aggregate]
functions = ["count", "sum", "min", "max", "digest"]

[sink]
topic = "totals"
delivery = "{delivery}"
late_topic = "totals-late"
dlq_topic = "totals-dlq"
{decisions}"#,
            self.out_of_orderness_ms, self.idle_after_ms, self.window_ms, self.allowed_lateness_ms
        )
    }
}

/// The shape of the events.
#[derive(Clone, Copy, Debug)]
pub struct EventTime {
    pub records: u64,
    pub partitions: u32,
    pub keys: u64,
    pub active_ms: u64,
    /// Event time lags arrival by up to this much.
    pub disorder_ms: u64,
    /// Event-time disasters on.
    pub twists: bool,
    /// Splits that fall silent for a stretch.
    pub idle_splits: u32,
    /// Part of the records sent in transactions, in percent; a quarter of those transactions abort.
    pub transactional_percent: u64,
    /// Plain producers, one after another: each begins with sequence 0, under whatever goes on then.
    pub producers: u64,
}

/// Adds topic `events` and its producers.
pub fn events(plan: &mut Plan, job: JobText, shape: EventTime) {
    const TOPIC: &str = "events";
    let partitions = shape.partitions;
    let shape = match plan.families_off.contains(&Family::EventTime) {
        true => EventTime { twists: false, idle_splits: 0, ..shape },
        false => shape,
    };
    plan.topics.push(topic(plan, TOPIC, partitions));
    let mut rng = stream(plan, "events", &[]);
    let mut taken = BTreeSet::new();

    let idle = idle_stretches(plan, job, shape);
    let bursts: Vec<u64> =
        if shape.twists { (0..rng.range(0, 2)).map(|_| rng.range(0, shape.active_ms)).collect() } else { Vec::new() };
    let (mut late, mut boundary, mut poison) = (0, 0, 0);
    let mut burst_records = vec![0; bursts.len()];

    let mut arrivals: Vec<(u64, i32, Payload, String)> = Vec::new();
    for _ in 0..shape.records {
        let burst = (!bursts.is_empty() && rng.chance(1, 8)).then(|| rng.index(bursts.len()));
        let at_ms = burst.map_or_else(|| rng.range(0, shape.active_ms), |b| bursts[b]);
        let silent = |p: i32| idle.iter().any(|&(q, from, to)| p == q && (from..to).contains(&at_ms));
        let mut partition = rng.range(0, u64::from(partitions) - 1) as i32;
        while silent(partition) {
            partition = (partition + 1) % partitions as i32;
        }
        if let Some(b) = burst {
            burst_records[b] += 1;
        }
        let mut t = ORIGIN_MS + at_ms as i64 - rng.range(0, shape.disorder_ms) as i64;
        let key = format!("k{}", rng.range(0, shape.keys - 1));
        let value = unique_value(&mut rng, &mut taken);
        let mut body = None;
        if shape.twists {
            match rng.range(0, 99) {
                0..5 => {
                    late += 1;
                    let behind = job.out_of_orderness_ms + rng.range(1, 3 * job.window_ms + job.allowed_lateness_ms);
                    t -= behind as i64;
                }
                5..9 => {
                    boundary += 1;
                    t = t - t.rem_euclid(job.window_ms as i64) + *rng.choose(&[0, job.window_ms as i64 - 1]);
                }
                9..11 => {
                    poison += 1;
                    body = Some(poison_value(&mut rng, &key, t, value));
                }
                _ => {}
            }
        }
        let body = body.unwrap_or_else(|| Payload::Text(format!(r#"{{"k":"{key}","t":{t},"v":{value}}}"#)));
        arrivals.push((at_ms, partition, body, key));
    }
    arrivals.sort_by_key(|a| a.0);

    let twists = idle
        .into_iter()
        .map(|(partition, from_ms, to_ms)| Twist::IdleSplit { partition, from_ms, to_ms })
        .chain((late > 0).then_some(Twist::Late { records: late }))
        .chain((boundary > 0).then_some(Twist::Boundary { records: boundary }))
        .chain((poison > 0).then_some(Twist::Poison { records: poison }))
        .chain(bursts.iter().zip(burst_records).map(|(&at_ms, records)| Twist::Burst { at_ms, records }));
    plan.twists = twists.collect();
    let transactional_share = shape.transactional_percent;
    // Transactional records, if any, come from a producer of their own, chosen by stretches of arrival time.
    let (mut plain, mut in_transactions) = (Vec::new(), Vec::new());
    for arrival in arrivals {
        match rng.range(0, 99) < transactional_share {
            true => in_transactions.push(arrival),
            false => plain.push(arrival),
        }
    }
    let each = plain.len().div_ceil(shape.producers.max(1) as usize).max(1);
    let mut plain = plain.into_iter().peekable();
    while plain.peek().is_some() {
        let some = plain.by_ref().take(each).collect();
        add_producer(plan, TOPIC, some, false);
    }
    if !in_transactions.is_empty() {
        add_producer(plan, TOPIC, in_transactions, true);
    }
}

/// Stretches without records, each long enough to be noticed: (partition, from, to).
fn idle_stretches(plan: &Plan, job: JobText, shape: EventTime) -> Vec<(i32, u64, u64)> {
    let mut rng = stream(plan, "idle", &[]);
    let count = shape.idle_splits.min(shape.partitions - 1);
    let mut partitions: Vec<i32> = (0..shape.partitions as i32).collect();
    rng.shuffle(&mut partitions);
    partitions
        .into_iter()
        .take(count as usize)
        .map(|p| {
            let length = job.idle_after_ms * 2 + rng.range(2_000, shape.active_ms / 3);
            let from = rng.range(0, shape.active_ms.saturating_sub(length));
            (p, from, from + length)
        })
        .collect()
}

/// Bad input of each kind of rule 24.
fn poison_value(rng: &mut seed::Rng, key: &str, t: i64, value: u64) -> Payload {
    let text = match rng.range(0, 7) {
        0 => format!("not json {value}"),
        1 => format!(r#"{{"t":{t},"v":{value}}}"#),
        2 => format!(r#"{{"k":"{key}","v":{value}}}"#),
        3 => format!(r#"{{"k":"{key}","t":{t}.0,"v":{value}}}"#),
        4 => format!(r#"{{"k":"{key}","t":{},"v":{value}}}"#, (1i64 << 53) + 1),
        5 => format!(r#"{{"k":"{key}","t":{t},"t":{t},"v":{value}}}"#),
        6 => format!(r#"{{"k":"{key}","t":{t},"v":"{value}x"}}"#),
        _ => return Payload::of(&[0xff, 0xfe, (value & 0x7f) as u8]),
    };
    Payload::Text(text)
}

/// Groups arrivals into sends and adds the client.
fn add_producer(plan: &mut Plan, topic: &str, arrivals: Vec<(u64, i32, Payload, String)>, transactional: bool) {
    let id = plan.clients.len() as u32;
    let mut rng = stream(plan, "grouping", &[u64::from(id)]);
    let mut batches: Vec<Batch> = Vec::new();
    let mut room = 0;
    let mut opened = 0;
    let mut n = 0;
    for (at_ms, partition, value, key) in arrivals {
        // A batch spans at most 100 ms of arrivals: later records must not wait in front of earlier ones.
        if room == 0 || at_ms > opened + 100 {
            room = rng.range(4, 30);
            n += u64::from(transactional);
            opened = at_ms;
            let transaction = transactional.then(|| Transaction {
                id: u64::from(id) << 32 | batches.len() as u64,
                n: 0,
                end: if rng.chance(1, 4) { End::Abort } else { End::Commit },
            });
            batches.push(Batch { at_ms, transaction, records: Vec::new() });
        }
        room -= 1;
        let record = Record { n, partition, timestamp: ORIGIN_MS + at_ms as i64, key: Some(Payload::Text(key)), value };
        if let Some(batch) = batches.last_mut() {
            batch.records.push(record);
            n += 1;
            // The end of the transaction takes the number after its last record; the next batch goes on above it.
            if let Some(t) = &mut batch.transaction {
                t.n = n;
            }
        }
    }
    let producer = Producer { topic: topic.into(), acks: Acks::All, idempotent: true, transactional, batches };
    plan.clients.push(Client { id, role: ClientRole::Producer(producer) });
}
