//! Node names by their number in the world.

use history::Observer;
use scenarios::Plan;

/// Of one plan.
#[derive(Clone, Debug)]
pub struct Names(Vec<String>);

impl Names {
    pub fn of(plan: &Plan) -> Self {
        Self(plan.nodes().iter().map(ToString::to_string).collect())
    }

    /// Numbers count from 1 in order of creation; 0 is the world itself.
    pub fn node(&self, number: u32) -> String {
        let name = number.checked_sub(1).and_then(|n| self.0.get(n as usize));
        name.cloned().unwrap_or_else(|| format!("node {number}"))
    }

    pub fn observer(&self, observer: &Observer) -> String {
        match observer {
            Observer::Node { node, .. } => self.node(*node),
            Observer::Client { client } => format!("client-{client}"),
        }
    }

    pub fn all(&self) -> &[String] {
        &self.0
    }
}

/// As Kafka names its error codes.
pub(super) fn error_name(code: i16) -> String {
    let name = match code {
        19 => "NOT_ENOUGH_REPLICAS",
        45 => "OUT_OF_ORDER_SEQUENCE_NUMBER",
        47 => "INVALID_PRODUCER_EPOCH",
        48 => "INVALID_TXN_STATE",
        59 => "UNKNOWN_PRODUCER_ID",
        90 => "PRODUCER_FENCED",
        120 => "TRANSACTION_ABORTABLE",
        other => return format!("error {other}"),
    };
    name.to_owned()
}
