//! From the system's probes to the vocabulary of `history`. The two are kept apart on purpose: what the system calls
//! its own facts may change, what a stored history says may not.

use broker::partition::probe::{PartitionEvent, PartitionProbe};
use history::{
    Batch, Change, Decision, DecisionEntry, Input, InputState, InputStatus, LogEvent, Observation, Observed, Observer,
    RowOp,
};
use models::Watermark;
use processor::decision as system;
use processor::probe::Probe;
use processor::watermark as wm;
use world::Current;

use super::{Inner, LeaderEpochs};

impl Inner {
    pub(super) fn processor(&mut self, at: Current, probe: Probe) {
        let what = match probe {
            Probe::Decision(entry) => {
                let entry = decision(at, entry);
                if let Decision::Open { checkpoint: Some(_), inputs, .. } = &entry.decision
                    && inputs.iter().any(|i| i.position.is_some_and(|p| p > 0))
                {
                    self.facts.restored_non_empty = true;
                }
                self.decisions.push(entry);
                return;
            }
            Probe::AttemptStarted { generation, checkpoint } => Observed::Restored { generation, checkpoint },
            Probe::WorkerRegistered { worker, connection } => Observed::WorkerRegistered { worker, connection },
            Probe::CheckpointCompleted { generation, n } => Observed::CheckpointComplete { generation, n },
            Probe::CheckpointCommitted { n, .. } => {
                self.facts.committed.insert(n);
                return;
            }
            Probe::AttemptFailed { generation, reason } => {
                let seconds = at.now.as_nanos() as f64 / 1e9;
                self.facts.notes.push(format!("{seconds:.3}s attempt {generation} failed: {reason}"));
                return;
            }
            _ => return,
        };
        self.observed(at, what);
    }

    fn leads_no_more(&mut self, at: Current, topic: String, partition: i32) {
        let led = self.leaderships.get_mut(&(at.node, at.incarnation));
        if let Some(leader_epoch) = led.and_then(|led| led.remove(&(topic.clone(), partition))) {
            self.observed(at, Observed::LeadershipEnded { topic, partition, leader_epoch });
        }
    }

    pub(super) fn partition(&mut self, at: Current, probe: &PartitionProbe) {
        let (id, node) = (&probe.partition, at.node);
        let (topic, partition) = (|| id.topic.to_string(), id.partition);
        if let Some(event) = log_event(&probe.event) {
            self.observed(at, Observed::Log { topic: topic(), partition, event });
        }
        let leader_epoch =
            |all: &LeaderEpochs| all.get(&node).and_then(|n| n.get(&*id.topic)?.get(&partition)).copied().unwrap_or(-1);
        let what = match probe.event {
            PartitionEvent::Led { leader_epoch, last_stable_offset, end, .. } => {
                let of_node = self.leader_epochs.entry(node).or_default();
                of_node.entry(topic()).or_default().insert(partition, leader_epoch);
                let led = self.leaderships.entry((node, at.incarnation)).or_default();
                let before = led.insert((topic(), partition), leader_epoch);
                if let Some(leader_epoch) = before.filter(|before| *before != leader_epoch) {
                    self.observed(at, Observed::LeadershipEnded { topic: topic(), partition, leader_epoch });
                }
                if let Some(&broker) = self.cluster.brokers.get(&node) {
                    let (topic, log_end) = (topic(), Some(end));
                    self.observed(at, Observed::LeaderElected { topic, partition, leader_epoch, broker, log_end });
                }
                Observed::LastStableOffset { topic: topic(), partition, leader_epoch, offset: last_stable_offset }
            }
            PartitionEvent::HighWatermark { offset } => {
                let leader_epoch = leader_epoch(&self.leader_epochs);
                Observed::HighWatermark { topic: topic(), partition, leader_epoch, offset }
            }
            PartitionEvent::Followed { leader_epoch, .. } => {
                let of_node = self.leader_epochs.entry(node).or_default();
                of_node.entry(topic()).or_default().insert(partition, leader_epoch);
                return self.leads_no_more(at, topic(), partition);
            }
            PartitionEvent::Failed | PartitionEvent::Closed { .. } => {
                return self.leads_no_more(at, topic(), partition);
            }
            PartitionEvent::FollowersHighWatermark { offset } => {
                let leader_epoch = leader_epoch(&self.leader_epochs);
                Observed::FollowerHighWatermark { topic: topic(), partition, leader_epoch, offset }
            }
            PartitionEvent::LastStableOffset { offset } => {
                let leader_epoch = leader_epoch(&self.leader_epochs);
                Observed::LastStableOffset { topic: topic(), partition, leader_epoch, offset }
            }
            _ => return,
        };
        self.observed(at, what);
    }

    pub(super) fn observed(&mut self, at: Current, what: Observed) {
        let observer = Observer::Node { node: at.node, incarnation: at.incarnation };
        self.observations.push(Observation { at_ns: at.now.as_nanos(), observer, what });
    }
}

/// What the broker did with its copy of the log.
fn log_event(event: &PartitionEvent) -> Option<LogEvent> {
    Some(match *event {
        PartitionEvent::Opened { log_start, end, first_open, aborted, .. } => {
            LogEvent::Opened { start: log_start, end, first_open, aborted: Some(aborted as u64) }
        }
        PartitionEvent::Followed { leader_epoch, leader, end } => LogEvent::Followed { leader_epoch, leader, end },
        PartitionEvent::Truncated { from, to, high_watermark } => LogEvent::Truncated { from, to, high_watermark },
        PartitionEvent::Reset { offset } => LogEvent::Reset { offset },
        PartitionEvent::Cleaned { base, end, .. } => LogEvent::Cleaned { base, end },
        PartitionEvent::MarkerRefused { error, producer_id, producer_epoch } => {
            LogEvent::MarkerRefused { error, producer_id, producer_epoch }
        }
        PartitionEvent::Replicated { base, last } => LogEvent::Replicated { base, last },
        PartitionEvent::IsrAsked { leader_epoch, ref isr } => LogEvent::IsrAsked { leader_epoch, isr: isr.clone() },
        PartitionEvent::IsrAnswered { partition_epoch, ref isr } => {
            LogEvent::IsrAnswered { partition_epoch, isr: isr.clone() }
        }
        PartitionEvent::Appended { base, last, producer_id, producer_epoch, base_sequence, transactional } => {
            let batch = Batch { producer_id, producer_epoch, base_sequence };
            LogEvent::Appended { base, last, transactional, batch }
        }
        PartitionEvent::Marker { offset, producer_id, producer_epoch, commit, .. } => {
            LogEvent::Marker { offset, producer_id, producer_epoch, commit }
        }
        PartitionEvent::Duplicate { base, last, producer_id } => LogEvent::Duplicate { base, last, producer_id },
        PartitionEvent::Refused { error, producer_id, producer_epoch, base_sequence } => {
            LogEvent::Refused { error, batch: Batch { producer_id, producer_epoch, base_sequence } }
        }
        PartitionEvent::Flushed { offset } => LogEvent::Flushed { offset },
        _ => return None,
    })
}

fn decision(at: Current, entry: system::Entry) -> DecisionEntry {
    let decision = match entry.decision {
        system::Decision::Open { checkpoint, watermark, inputs, key_groups } => Decision::Open {
            checkpoint,
            watermark: self::watermark(watermark),
            inputs: inputs
                .into_iter()
                .map(|i| InputState {
                    input: input(i.input),
                    watermark: self::watermark(i.watermark),
                    status: status(i.status),
                    position: i.position,
                })
                .collect(),
            key_groups: key_groups.into_iter().map(|(kg, w)| (kg, self::watermark(w))).collect(),
        },
        system::Decision::Advance { input: i, offset, change, time_ms } => Decision::Advance {
            input: input(i),
            offset,
            change: match change {
                wm::Change::Watermark(w) => Change::Watermark(self::watermark(w)),
                wm::Change::Idle => Change::Idle,
                wm::Change::Active => Change::Active,
                wm::Change::End => Change::End,
            },
            time_ms: time_ms as i64,
        },
        system::Decision::Judge { partition, offsets: (first, last), key_group } => {
            Decision::Judge { partition, offsets: [first, last], key_group }
        }
        system::Decision::Late { partition, offset } => Decision::Late { partition, offset },
        system::Decision::Barrier { n, producer_id, producer_epoch, positions } => {
            Decision::Barrier { n, producer_id, producer_epoch, positions: positions.unwrap_or_default() }
        }
        system::Decision::Fire { key, start, end, pane, op } => Decision::Fire {
            key,
            start,
            end,
            pane: u64::from(pane),
            op: match op {
                system::Op::Insert => RowOp::Insert,
                system::Op::Update => RowOp::Update,
                system::Op::Retract => RowOp::Retract,
            },
        },
    };
    DecisionEntry {
        generation: entry.generation,
        task: entry.task,
        seq: entry.seq,
        decision,
        at_ns: Some(at.now.as_nanos()),
    }
}

fn watermark(w: wm::Watermark) -> Watermark {
    Watermark(w.as_ms())
}

fn input(i: system::InputId) -> Input {
    match i {
        system::InputId::Split(p) => Input::Split(p),
        system::InputId::Channel(task) => Input::Channel(task),
    }
}

fn status(s: wm::Status) -> InputStatus {
    match s {
        wm::Status::New => InputStatus::New,
        wm::Status::Idle => InputStatus::Idle,
        wm::Status::Behind => InputStatus::Behind,
        wm::Status::In => InputStatus::In,
        wm::Status::Ended => InputStatus::Ended,
    }
}
