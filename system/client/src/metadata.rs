//! What the client knows of the cluster: brokers, and each partition's leader. Pure; [`crate::Client`] refreshes it.

use std::collections::BTreeMap;
use std::fmt;

use protocol::{ErrorCode, Uuid, messages};

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub host: String,
    pub port: u16,
}

/// Who leads a partition, since which epoch (-1 where the broker does not say).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    pub node: i32,
    pub epoch: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Nil where the broker does not say.
    pub id: Uuid,
    /// `None`: no leader at present.
    pub partitions: BTreeMap<i32, Option<Leader>>,
}

/// A snapshot of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    pub nodes: BTreeMap<i32, Node>,
    pub controller: Option<i32>,
    pub topics: BTreeMap<String, Topic>,
    /// Topics that the last answer refused, with the reason.
    pub errors: BTreeMap<String, ErrorCode>,
}

impl Metadata {
    pub fn leader(&self, tp: &TopicPartition) -> Option<Leader> {
        *self.topics.get(&tp.topic)?.partitions.get(&tp.partition)?
    }

    /// The topic's id, `None` if it is not known or the broker has none.
    pub fn topic_id(&self, topic: &str) -> Option<Uuid> {
        self.topics.get(topic).map(|t| t.id).filter(|id| !id.is_nil())
    }

    pub fn topic_name(&self, id: Uuid) -> Option<&str> {
        self.topics.iter().find(|(_, t)| t.id == id).map(|(name, _)| name.as_str())
    }

    /// Takes over an answer. A partition's leader is replaced only by one of a newer epoch, or the same: a broker that
    /// lags must not send the client back (KIP-320). A topic with another id is another topic.
    pub fn update(&mut self, answer: &messages::MetadataResponse) {
        self.nodes.clear();
        for b in &answer.brokers {
            if let Ok(port) = u16::try_from(b.port) {
                self.nodes.insert(b.node_id.0, Node { host: b.host.to_string(), port });
            }
        }
        self.controller = (answer.controller_id.0 >= 0).then_some(answer.controller_id.0);
        for t in &answer.topics {
            let Some(name) = &t.name else { continue };
            let name = name.to_string();
            let code = ErrorCode::from_code(t.error_code);
            if !code.is_ok() {
                self.topics.remove(&name);
                self.errors.insert(name, code);
                continue;
            }
            self.errors.remove(&name);
            let old = self.topics.remove(&name).filter(|old| old.id == t.topic_id);
            let partitions = t.partitions.iter().map(|p| {
                let fresh = (p.leader_id.0 >= 0).then_some(Leader { node: p.leader_id.0, epoch: p.leader_epoch });
                let known = old.as_ref().and_then(|o| o.partitions.get(&p.partition_index).copied().flatten());
                let leader = match (fresh, known) {
                    (Some(fresh), Some(known)) if fresh.epoch >= 0 && fresh.epoch < known.epoch => Some(known),
                    (fresh, _) => fresh,
                };
                (p.partition_index, leader)
            });
            let partitions = partitions.collect();
            self.topics.insert(name, Topic { id: t.topic_id, partitions });
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
    use protocol::topic_name;

    use super::*;

    fn answer(id: u128, epoch: i32, leader: i32) -> messages::MetadataResponse {
        let p = MetadataResponsePartition::default().with_leader_id(leader.into()).with_leader_epoch(epoch);
        let t = MetadataResponseTopic::default()
            .with_name(Some(topic_name("t")))
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(vec![p]);
        messages::MetadataResponse::default().with_topics(vec![t])
    }

    #[test]
    fn leaders_never_go_back_in_epoch() {
        let tp = TopicPartition::new("t", 0);
        let mut m = Metadata::default();
        m.update(&answer(1, 5, 1));
        m.update(&answer(1, 4, 2));
        assert_eq!(m.leader(&tp), Some(Leader { node: 1, epoch: 5 }));
        m.update(&answer(1, 6, 2));
        assert_eq!(m.leader(&tp), Some(Leader { node: 2, epoch: 6 }));
        m.update(&answer(2, 0, 3));
        assert_eq!(m.leader(&tp), Some(Leader { node: 3, epoch: 0 }), "a recreated topic starts anew");
        assert_eq!(m.topic_name(Uuid::from_u128(2)), Some("t"));
        m.update(&answer(2, 1, -1));
        assert_eq!(m.leader(&tp), None);
    }
}
