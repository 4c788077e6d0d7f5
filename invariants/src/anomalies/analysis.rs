//! What all anomaly classes look at: units of work, the order of each partition's records, and polls.
//!
//! A *unit* is a transaction, or one operation outside of any. The *order* of a partition is that of the offsets in the
//! final read, which also says what became of operations whose outcome clients do not know: nothing is assumed.

use std::collections::BTreeMap;

use history::{Op, OpId, OpKind, OpResult, PolledPartition, PolledRecord, Witness};

use crate::{Context, Fate};

pub(crate) struct Analysis<'a> {
    pub ops: &'a [Op],
    pub units: Vec<Unit>,
    /// Of each operation; those that neither send nor poll have none.
    unit_of: Vec<Option<usize>>,
    pub orders: BTreeMap<(&'a str, i32), Order>,
    /// Answered ones, by client and in its order.
    pub polls: Vec<Poll<'a>>,
    /// What resets a consumer's position: (client, n) of each assign, subscribe and rebalance, sorted.
    pub resets: Vec<(u32, u64)>,
}

pub(crate) struct Unit {
    pub txn: Option<u64>,
    pub first: OpId,
    pub client: u32,
    /// Whether its effects stand, as the log and the answers say; `None`: nobody can tell.
    pub committed: Option<bool>,
}

/// Records of one partition that are no control records, in order of offset.
pub(crate) struct Order {
    pub start: i64,
    pub records: Vec<Placed>,
    /// Indices of those that `read_committed` shows.
    pub visible: Vec<usize>,
}

#[derive(Clone, Copy)]
pub(crate) struct Placed {
    pub offset: i64,
    pub op: Option<OpId>,
    pub fate: Fate,
}

#[derive(Clone, Copy)]
pub(crate) struct Poll<'a> {
    pub id: OpId,
    pub op: &'a Op,
    pub read_committed: bool,
    pub unit: usize,
    pub reads: &'a [PolledPartition],
}

impl<'a> Analysis<'a> {
    pub fn new(context: &Context<'a>) -> Analysis<'a> {
        let ops = &context.history.ops;
        let mut orders = BTreeMap::new();
        let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
        let mut written: Vec<Option<Fate>> = vec![None; ops.len()];
        for (at, raw) in context.raw() {
            let mut order = Order { start: raw.log.log_start_offset, records: Vec::new(), visible: Vec::new() };
            for ((record, fate), op) in raw.log.records.iter().zip(&raw.fates).zip(&raw.ops) {
                if *fate == Fate::Marker {
                    continue;
                }
                if fate.is_visible() {
                    order.visible.push(order.records.len());
                }
                order.records.push(Placed { offset: record.offset, op: *op, fate: *fate });
                if let Some(op) = op {
                    written[op.0].get_or_insert(*fate);
                    if let OpKind::Produce { txn: Some(txn), .. } = ops[op.0].kind {
                        fates.entry(txn).or_insert(*fate);
                    }
                }
            }
            orders.insert(*at, order);
        }
        let mut analysis = Analysis {
            ops,
            units: Vec::new(),
            unit_of: vec![None; ops.len()],
            orders,
            polls: Vec::new(),
            resets: Vec::new(),
        };
        let mut txns: BTreeMap<u64, usize> = BTreeMap::new();
        for (i, op) in ops.iter().enumerate() {
            let (txn, end) = match &op.kind {
                OpKind::Produce { txn, .. } | OpKind::Poll { txn, .. } => (*txn, None),
                OpKind::EndTxn { txn, commit } => (Some(*txn), Some(*commit)),
                OpKind::Assign { .. } | OpKind::Subscribe { .. } | OpKind::Rebalance { .. } => {
                    analysis.resets.push((op.client, op.n));
                    continue;
                }
                _ => continue,
            };
            let new = analysis.units.len();
            let unit = txn.map_or(new, |txn| *txns.entry(txn).or_insert(new));
            if unit == new {
                let committed = match txn {
                    Some(txn) => fates.get(&txn).and_then(|fate| match fate {
                        Fate::Open => None,
                        fate => Some(fate.is_visible()),
                    }),
                    None => match (&op.result, written[i]) {
                        (_, Some(fate)) => Some(fate.is_visible()),
                        (OpResult::Failed { .. }, None) => Some(false),
                        (OpResult::Unknown { .. }, None) => None,
                        (_, None) => Some(true),
                    },
                };
                analysis.units.push(Unit { txn, first: OpId(i), client: op.client, committed });
            }
            if let Some(commit) = end {
                // Where no record of it says more.
                let known = analysis.units[unit].committed;
                analysis.units[unit].committed = known.or(op.is_ok().then_some(commit));
            }
            analysis.unit_of[i] = Some(unit);
            if let (OpKind::Poll { read_committed, .. }, OpResult::Polled { reads }) = (&op.kind, &op.result) {
                analysis.polls.push(Poll { id: OpId(i), op, read_committed: *read_committed, unit, reads });
            }
        }
        analysis.polls.sort_by_key(|poll| (poll.op.client, poll.op.n));
        analysis.resets.sort_unstable();
        analysis
    }

    pub fn unit(&self, op: OpId) -> Option<usize> {
        self.unit_of[op.0]
    }

    pub fn order<'s>(&'s self, read: &'s PolledPartition) -> Option<&'s Order> {
        self.orders.get(&(read.topic.as_str(), read.partition))
    }

    /// Whether a consumer's position was set anew between two of its operations.
    pub fn is_reset(&self, client: u32, after: u64, before: u64) -> bool {
        let i = self.resets.partition_point(|at| *at <= (client, after));
        self.resets.get(i).is_some_and(|at| *at < (client, before))
    }

    /// For people.
    pub fn name(&self, unit: usize) -> String {
        let unit = &self.units[unit];
        match unit.txn {
            Some(txn) => format!("transaction {txn} of client {}", unit.client),
            None => self.op_name(unit.first),
        }
    }

    pub fn op_name(&self, op: OpId) -> String {
        format!("client {} operation {}", self.ops[op.0].client, self.ops[op.0].n)
    }
}

impl Order {
    /// Of a record of that offset.
    pub fn at(&self, offset: i64) -> Option<Placed> {
        self.records.binary_search_by_key(&offset, |r| r.offset).ok().map(|i| self.records[i])
    }

    /// How many records of its isolation level a consumer has before it at an offset.
    pub fn rank(&self, offset: i64, read_committed: bool) -> usize {
        let i = self.records.partition_point(|r| r.offset < offset);
        if read_committed { self.visible.partition_point(|v| *v < i) } else { i }
    }

    /// The record of a rank.
    pub fn ranked(&self, rank: usize, read_committed: bool) -> Option<Placed> {
        let i = if read_committed { *self.visible.get(rank)? } else { rank };
        self.records.get(i).copied()
    }

    /// Records in the order that a consumer sees.
    pub fn seen(&self) -> impl Iterator<Item = Placed> {
        self.visible.iter().map(|i| self.records[*i])
    }
}

/// A step of a consumer from one record of a partition to the next one it got.
pub(crate) struct Step {
    pub read: (String, i32),
    pub from: PolledRecord,
    pub to: PolledRecord,
    /// 1 for the next record, more when some are skipped, less when it goes back.
    pub delta: i64,
    /// The first record that was skipped.
    pub skipped: Option<Placed>,
    pub poll: OpId,
    /// Within one unit, or from one to the next.
    pub internal: bool,
}

impl Analysis<'_> {
    /// Every step that is not to the next record. A step over an assignment is none, nor one from or to what the final log
    /// does not have.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut last: BTreeMap<(&str, i32), (PolledRecord, usize)> = BTreeMap::new();
        let mut before: Option<(u32, u64)> = None;
        for poll in &self.polls {
            let (client, n) = (poll.op.client, poll.op.n);
            if before.is_none_or(|(c, b)| c != client || self.is_reset(client, b, n)) {
                last.clear();
            }
            before = Some((client, n));
            for read in poll.reads {
                let Some(order) = self.order(read) else { continue };
                for record in &read.records {
                    let was = last.insert((&read.topic, read.partition), (*record, poll.unit));
                    let Some((from, unit)) = was else { continue };
                    if order.at(from.offset).is_none() || order.at(record.offset).is_none() {
                        continue;
                    }
                    let rank = |offset| order.rank(offset, poll.read_committed);
                    let (a, b) = (rank(from.offset), rank(record.offset));
                    let delta = b as i64 - a as i64;
                    if delta != 1 {
                        let skipped = (delta > 1).then(|| order.ranked(a + 1, poll.read_committed)).flatten();
                        steps.push(Step {
                            read: (read.topic.clone(), read.partition),
                            from,
                            to: *record,
                            delta,
                            skipped,
                            poll: poll.id,
                            internal: unit == poll.unit,
                        });
                    }
                }
            }
        }
        steps
    }

    pub fn step_witness(&self, step: &Step) -> Witness {
        let (topic, partition) = &step.read;
        Witness::offset(topic, *partition, step.to.offset)
            .about(self.op_name(step.poll))
            .expected(match step.skipped {
                Some(skipped) => format!("offset {}, the next after {}", skipped.offset, step.from.offset),
                None => format!("an offset past {}", step.from.offset),
            })
            .found(format_args!("offset {}", step.to.offset))
    }
}

/// A producer's send that follows another of its own to the same partition.
pub(crate) struct Send {
    pub partition: (String, i32),
    pub before: (OpId, i64),
    pub after: (OpId, i64),
    pub internal: bool,
    /// Records between the two that `read_committed` shows.
    pub between: usize,
}

impl Analysis<'_> {
    /// Each pair of successive acknowledged sends of a client's idempotent producer to one partition.
    pub fn sends(&self) -> Vec<Send> {
        let mut sends = Vec::new();
        let mut last: BTreeMap<(u32, &str, i32), (OpId, i64)> = BTreeMap::new();
        let mut order: Vec<usize> = (0..self.ops.len()).collect();
        order.sort_by_key(|i| (self.ops[*i].client, self.ops[*i].n));
        for i in order {
            let op = &self.ops[i];
            let OpKind::Produce { topic, partition, idempotent: true, .. } = &op.kind else { continue };
            let OpResult::Ok { offset: Some(offset) } = op.result else { continue };
            let after = (OpId(i), offset);
            let Some(before) = last.insert((op.client, topic, *partition), after) else { continue };
            let between = self
                .orders
                .get(&(topic.as_str(), *partition))
                .map_or(0, |order| order.rank(offset, true).saturating_sub(order.rank(before.1, true) + 1));
            sends.push(Send {
                partition: (topic.clone(), *partition),
                before,
                after,
                internal: self.unit(before.0) == self.unit(after.0),
                between,
            });
        }
        sends
    }

    pub fn send_witness(&self, send: &Send) -> Witness {
        let (topic, partition) = &send.partition;
        Witness::offset(topic, *partition, send.after.1)
            .about(self.op_name(send.after.0))
            .expected(format_args!("an offset past {} of {}", send.before.1, self.op_name(send.before.0)))
            .found(format_args!("offset {}", send.after.1))
    }
}
