//! The decision log (semantics rule 22): what an attempt of a task decided, in processing order, so that a checker can
//! recompute every W and every judgement from the log alone.
//!
//! Each entry is a probe; when the job names a `decisions_topic` it is also one JSON record there, written in the sink
//! transaction of the epoch it belongs to. The serde form of [`Entry`] is the contract.

use serde::Serialize;

use crate::watermark::{Change, Status, Watermark};

/// One line of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Entry {
    pub generation: u64,
    pub task: String,
    /// From 0 within (generation, task), without gaps.
    pub seq: u64,
    pub decision: Decision,
}

/// An input of a combining point.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputId {
    Split(i32),
    Channel(String),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct OpenInput {
    pub input: InputId,
    pub watermark: Watermark,
    pub status: Status,
    /// Splits only: the next offset to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Op {
    #[serde(rename = "+I")]
    Insert,
    #[serde(rename = "+U")]
    Update,
    #[serde(rename = "-U")]
    Retract,
}

impl Op {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::Update => "+U",
            Self::Retract => "-U",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The state the attempt starts from: what the checkpoint held, or nothing.
    Open {
        checkpoint: Option<u64>,
        watermark: Watermark,
        inputs: Vec<OpenInput>,
        key_groups: Vec<(u32, Watermark)>,
    },
    Advance {
        input: InputId,
        /// Source tasks only. For a W the last offset it covers; for a status the position.
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
        change: Change,
        /// The node's monotonic clock, milliseconds.
        time_ms: u64,
    },
    /// All valid records of `partition` in `offsets` (both inclusive) whose key is in `key_group` were judged at the W
    /// of this place in the log.
    Judge {
        partition: i32,
        offsets: (i64, i64),
        key_group: u32,
    },
    Late {
        partition: i32,
        offset: i64,
    },
    Barrier {
        n: u64,
        producer_id: i64,
        producer_epoch: i16,
        /// Source tasks only: the next offset of each split.
        #[serde(skip_serializing_if = "Option::is_none")]
        positions: Option<Vec<(i32, i64)>>,
    },
    Fire {
        key: String,
        start: i64,
        end: i64,
        pane: u32,
        op: Op,
    },
}

/// Numbers a task's decisions and makes entries of them.
#[derive(Debug)]
pub struct DecisionLog {
    generation: u64,
    task: String,
    seq: u64,
}

impl DecisionLog {
    pub fn new(generation: u64, task: impl Into<String>) -> Self {
        Self { generation, task: task.into(), seq: 0 }
    }

    /// Reports the decision as a probe and returns its entry, if it is to be `kept`.
    pub fn record(&mut self, decision: Decision, kept: bool) -> Option<Entry> {
        let (generation, task, seq) = (self.generation, &self.task, self.seq);
        self.seq += 1;
        let entry = |decision| Entry { generation, task: task.clone(), seq, decision };
        if kept {
            let entry = entry(decision);
            env::probe::probe(|| crate::probe::Probe::Decision(entry.clone()));
            return Some(entry);
        }
        env::probe::probe(|| crate::probe::Probe::Decision(entry(decision)));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(decision: Decision) -> String {
        serde_json::to_string(&Entry { generation: 3, task: "source-0".into(), seq: 7, decision }).unwrap()
    }

    #[test]
    fn the_json_form_is_the_contract() {
        let input = InputId::Split(2);
        let open = Decision::Open {
            checkpoint: None,
            watermark: Watermark::MIN,
            inputs: vec![OpenInput {
                input: input.clone(),
                watermark: Watermark::from_ms(-5),
                status: Status::Behind,
                position: Some(4),
            }],
            key_groups: vec![(1, Watermark::MAX)],
        };
        assert_eq!(
            json(open),
            r#"{"generation":3,"task":"source-0","seq":7,"decision":{"open":{"checkpoint":null,"watermark":"MIN","inputs":[{"input":{"split":2},"watermark":-5,"status":"behind","position":4}],"key_groups":[[1,"MAX"]]}}}"#
        );
        let change = Change::Watermark(Watermark::from_ms(9));
        let advance = Decision::Advance { input: input.clone(), offset: Some(8), change, time_ms: 1 };
        assert!(
            json(advance)
                .contains(r#"{"advance":{"input":{"split":2},"offset":8,"change":{"watermark":9},"time_ms":1}}"#)
        );
        let channel = InputId::Channel("source-0".into());
        let idle = Decision::Advance { input: channel, offset: None, change: Change::Idle, time_ms: 1 };
        assert!(json(idle).contains(r#"{"advance":{"input":{"channel":"source-0"},"change":"idle","time_ms":1}}"#));
        let judge = Decision::Judge { partition: 1, offsets: (2, 3), key_group: 4 };
        assert!(json(judge).contains(r#"{"judge":{"partition":1,"offsets":[2,3],"key_group":4}}"#));
        let barrier = Decision::Barrier { n: 1, producer_id: 5, producer_epoch: 6, positions: Some(vec![(0, 9)]) };
        assert!(
            json(barrier).contains(r#"{"barrier":{"n":1,"producer_id":5,"producer_epoch":6,"positions":[[0,9]]}}"#)
        );
        let fire = Decision::Fire { key: "a".into(), start: -60, end: 0, pane: 0, op: Op::Insert };
        assert!(json(fire).contains(r#"{"fire":{"key":"a","start":-60,"end":0,"pane":0,"op":"+I"}}"#));
    }
}
