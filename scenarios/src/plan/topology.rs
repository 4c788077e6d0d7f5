//! Which nodes exist, and what they are called.

use serde::{Deserialize, Serialize};

use super::Client;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Broker,
    Coordinator,
    Worker,
    Client,
}

impl Role {
    pub const fn name(self) -> &'static str {
        match self {
            Role::Broker => "broker",
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Client => "client",
        }
    }
}

/// A node by role and number, as text `worker-1`. The coordinator is `coordinator-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName {
    pub role: Role,
    pub number: u32,
}

impl NodeName {
    pub const fn new(role: Role, number: u32) -> Self {
        Self { role, number }
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.role.name(), self.number)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a node: expected broker-N, coordinator-0, worker-N or client-N");
        let (role, number) = text.rsplit_once('-').ok_or_else(bad)?;
        let role = [Role::Broker, Role::Coordinator, Role::Worker, Role::Client]
            .into_iter()
            .find(|r| r.name() == role)
            .ok_or_else(bad)?;
        let parsed: u32 = number.parse().map_err(|_| bad())?;
        // "worker-01" would be a second spelling of one node.
        if parsed.to_string() != number {
            return Err(bad());
        }
        Ok(Self { role, number: parsed })
    }
}

/// Counts of the system's nodes; workload clients are listed in the plan, one node each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    pub brokers: u32,
    /// 0 without a job, otherwise at least 2, and one coordinator beside them.
    pub workers: u32,
}

impl Topology {
    pub(super) fn nodes(&self, clients: &[Client]) -> Vec<NodeName> {
        let mut all: Vec<_> = (0..self.brokers).map(|n| NodeName::new(Role::Broker, n)).collect();
        if self.workers > 0 {
            all.push(NodeName::new(Role::Coordinator, 0));
            all.extend((0..self.workers).map(|n| NodeName::new(Role::Worker, n)));
        }
        all.extend(clients.iter().map(|c| NodeName::new(Role::Client, c.id)));
        all
    }
}
