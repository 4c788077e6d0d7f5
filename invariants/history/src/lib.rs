//! What a run left behind, as data: the one input of every invariant.
//!
//! A [`History`] holds what clients asked and heard ([`Op`]), what was observed on the way ([`Observation`]), the
//! processor's decisions ([`DecisionEntry`]), the faults that bit ([`FaultEffect`]), the logs as finally read and as
//! decoded from the disks ([`PartitionLog`]), and the facts of the plan that checks need ([`Facts`]). It serialises to
//! JSON with a [`VERSION`]. Times are nanoseconds of the world's own clock unless a name says otherwise.

mod facts;
mod log;
mod observation;
mod op;
mod verdict;
mod witness;

pub use facts::{Copying, Facts, Flush, Group, Span};
pub use log::{Blob, COPY_OF, Control, Header, LogRecord, LogSource, PartitionLog, Records};
pub use models::decision::{Change, Decision, DecisionEntry, Input, InputState, InputStatus};
pub use models::row::RowOp;
pub use observation::{
    Batch, FaultEffect, LoadedMember, LoadedOffset, LogEvent, MemberAssignment, Observation, Observed, Observer,
    TopicPartition, TransactionState,
};
pub use op::{Op, OpId, OpKind, OpResult, PolledPartition, PolledRecord};
use serde::{Deserialize, Serialize};
pub use verdict::{Outcome, Verdict, Violation};
pub use witness::{Window, Witness};

/// Of the JSON form; a reader refuses others.
pub const VERSION: u32 = 2;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub version: u32,
    pub facts: Facts,
    /// In order of invocation.
    #[serde(default)]
    pub ops: Vec<Op>,
    /// In order of time.
    #[serde(default)]
    pub observations: Vec<Observation>,
    /// In order of recording; per (generation, task) in order of `seq`.
    #[serde(default)]
    pub decisions: Vec<DecisionEntry>,
    #[serde(default)]
    pub faults: Vec<FaultEffect>,
    /// Final reads and disk images, one entry a partition and source.
    #[serde(default)]
    pub logs: Vec<PartitionLog>,
}

impl History {
    pub fn new(facts: Facts) -> History {
        History {
            version: VERSION,
            facts,
            ops: Vec::new(),
            observations: Vec::new(),
            decisions: Vec::new(),
            faults: Vec::new(),
            logs: Vec::new(),
        }
    }

    /// Records an invocation; complete it with [`History::complete`]. One never completed counts as unknown.
    pub fn invoke(&mut self, client: u32, n: u64, at_ns: u64, kind: OpKind) -> OpId {
        self.ops.push(Op {
            client,
            n,
            kind,
            invoked_ns: at_ns,
            completed_ns: None,
            result: OpResult::Unknown { reason: None },
        });
        OpId(self.ops.len() - 1)
    }

    /// # Panics
    /// If the operation was completed before.
    pub fn complete(&mut self, op: OpId, at_ns: u64, result: OpResult) {
        let op = &mut self.ops[op.0];
        assert!(op.completed_ns.is_none(), "operation {}/{} completed twice", op.client, op.n);
        op.completed_ns = Some(at_ns);
        op.result = result;
    }

    /// The logs of one source, in order of topic and partition.
    pub fn logs_from<'a>(&'a self, source: &'a LogSource) -> impl Iterator<Item = &'a PartitionLog> {
        self.logs.iter().filter(move |log| log.source == *source)
    }

    /// The final read of one partition with isolation `source`.
    pub fn log(&self, source: &LogSource, topic: &str, partition: i32) -> Option<&PartitionLog> {
        self.logs.iter().find(|log| log.source == *source && log.topic == topic && log.partition == partition)
    }
}

#[cfg(test)]
mod tests {
    use models::Watermark;

    use super::*;

    /// The contract's JSON, as the processor writes it to the decisions topic.
    #[test]
    fn decisions_read_as_the_topic_has_them() {
        let texts = [
            r#"{"generation":2,"task":"source-0","seq":0,"decision":{"open":{"checkpoint":null,"watermark":"MIN","inputs":[{"input":{"split":1},"watermark":"MIN","status":"new","position":0}],"key_groups":[]}}}"#,
            r#"{"generation":2,"task":"window-1","seq":1,"decision":{"advance":{"input":{"channel":"source-0"},"change":{"watermark":-5},"time_ms":7}}}"#,
            r#"{"generation":2,"task":"source-0","seq":1,"decision":{"advance":{"input":{"split":1},"offset":4,"change":"idle","time_ms":7}}}"#,
            r#"{"generation":2,"task":"window-1","seq":2,"decision":{"judge":{"partition":0,"offsets":[3,4],"key_group":17}}}"#,
            r#"{"generation":2,"task":"window-1","seq":3,"decision":{"late":{"partition":0,"offset":3}}}"#,
            r#"{"generation":2,"task":"window-1","seq":4,"decision":{"barrier":{"n":1,"producer_id":9,"producer_epoch":2,"positions":[]}}}"#,
            r#"{"generation":2,"task":"window-1","seq":5,"decision":{"fire":{"key":"JFK","start":0,"end":10,"pane":0,"op":"+I"}}}"#,
        ];
        for text in texts {
            let entry: DecisionEntry = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        }
        let Decision::Open { watermark, .. } = serde_json::from_str::<DecisionEntry>(texts[0]).unwrap().decision else {
            panic!("expected an open");
        };
        assert_eq!(watermark, Watermark::MIN);
    }
}
