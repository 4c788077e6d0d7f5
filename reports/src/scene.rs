//! What the world saw of a run and its history does not hold: who lived when, and which bytes went from whom to whom.
//!
//! Nodes are numbers in order of creation, from 1: `Plan::nodes` names them.

use serde::{Deserialize, Serialize};

/// In order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    pub turns: Vec<Turn>,
    /// In order of arrival.
    pub messages: Vec<Message>,
    /// Messages that are not in the list, for it is full.
    pub messages_left_out: u64,
}

/// A turn in the life of a node: `crash`, `power-loss`, `exit`, `restart`, `pause`, `resume`, `crash-point`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub at_ns: u64,
    pub node: u32,
    pub incarnation: u32,
    pub kind: String,
}

/// Data that arrived. In JSON an array, since there are thousands of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 5]", into = "[u64; 5]")]
pub struct Message {
    pub sent_ns: u64,
    pub arrived_ns: u64,
    pub from: u32,
    pub to: u32,
    pub bytes: u32,
}

impl From<Message> for [u64; 5] {
    fn from(m: Message) -> [u64; 5] {
        [m.sent_ns, m.arrived_ns, u64::from(m.from), u64::from(m.to), u64::from(m.bytes)]
    }
}

impl From<[u64; 5]> for Message {
    fn from([sent_ns, arrived_ns, from, to, bytes]: [u64; 5]) -> Message {
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Message { sent_ns, arrived_ns, from: small(from), to: small(to), bytes: small(bytes) }
    }
}
