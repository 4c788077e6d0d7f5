//! What members of a classic consumer group tell each other through the coordinator: subscriptions and assignments, of
//! the "consumer" protocol type. The bytes come from other clients, so they are checked like any other message.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self, consumer_protocol_assignment, consumer_protocol_subscription};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::guard::{self, Known};
use crate::request::Malformed;
use crate::{str_bytes, topic_name};

/// The newest version that is read and written; newer ones are read as this.
const LATEST: i16 = 3;

/// Partitions by topic.
pub type Partitions = BTreeMap<String, Vec<i32>>;

/// What a member can read, and what it reads now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    pub topics: Vec<String>,
    pub user_data: Option<Bytes>,
    pub owned: Partitions,
    /// The generation in which it owned that, -1 if none or unknown (before version 2).
    pub generation: i32,
    pub rack: Option<String>,
}

/// What a member is to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    pub partitions: Partitions,
    pub user_data: Option<Bytes>,
}

fn open<M: Known + Decodable>(mut bytes: Bytes) -> Result<M, Malformed> {
    let version = bytes.try_get_i16()?;
    if version < 0 {
        return Err(Malformed::new(format!("version {version}")));
    }
    let version = version.min(LATEST);
    guard::check(&M::LAYOUT, version, &bytes)?;
    M::decode(&mut bytes, version).map_err(|e| Malformed::new(e.to_string()))
}

fn seal(message: &impl Encodable) -> Bytes {
    let mut buf = BytesMut::new();
    buf.put_i16(LATEST);
    message.encode(&mut buf, LATEST).expect("the latest version has every field");
    buf.freeze()
}

impl Subscription {
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let m: messages::ConsumerProtocolSubscription = open(bytes)?;
        Ok(Self {
            topics: m.topics.iter().map(|t| t.as_str().to_owned()).collect(),
            user_data: m.user_data,
            owned: m.owned_partitions.into_iter().map(|t| (t.topic.as_str().to_owned(), t.partitions)).collect(),
            generation: m.generation_id,
            rack: m.rack_id.map(|r| r.as_str().to_owned()),
        })
    }

    pub fn encode(&self) -> Bytes {
        let owned = self.owned.iter().map(|(topic, partitions)| {
            consumer_protocol_subscription::TopicPartition::default()
                .with_topic(topic_name(topic.as_str()))
                .with_partitions(partitions.clone())
        });
        let message = messages::ConsumerProtocolSubscription::default()
            .with_topics(self.topics.iter().map(|t| str_bytes(t.as_str())).collect())
            .with_user_data(self.user_data.clone())
            .with_owned_partitions(owned.collect())
            .with_generation_id(self.generation)
            .with_rack_id(self.rack.as_deref().map(str_bytes));
        seal(&message)
    }
}

impl Assignment {
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let m: messages::ConsumerProtocolAssignment = open(bytes)?;
        let partitions = m.assigned_partitions.into_iter().map(|t| (t.topic.as_str().to_owned(), t.partitions));
        Ok(Self { partitions: partitions.collect(), user_data: m.user_data })
    }

    pub fn encode(&self) -> Bytes {
        let partitions = self.partitions.iter().map(|(topic, partitions)| {
            consumer_protocol_assignment::TopicPartition::default()
                .with_topic(topic_name(topic.as_str()))
                .with_partitions(partitions.clone())
        });
        let message = messages::ConsumerProtocolAssignment::default()
            .with_assigned_partitions(partitions.collect())
            .with_user_data(self.user_data.clone());
        seal(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_round_trip_and_older_ones_are_read() {
        let owned = Partitions::from([("t".to_owned(), vec![0, 2])]);
        let s = Subscription {
            topics: vec!["t".to_owned()],
            user_data: None,
            owned: owned.clone(),
            generation: 4,
            rack: Some("r".to_owned()),
        };
        assert_eq!(Subscription::decode(s.encode()), Ok(s.clone()));
        let a = Assignment { partitions: owned, user_data: Some(Bytes::from_static(b"u")) };
        assert_eq!(Assignment::decode(a.encode()), Ok(a.clone()));
        let v0 = Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff");
        let read = Subscription::decode(v0).unwrap();
        assert_eq!((read.topics, read.generation), (vec!["t".to_owned()], -1));
        for len in 0..s.encode().len() {
            assert!(Subscription::decode(s.encode().slice(..len)).is_err());
        }
        assert!(Assignment::decode(Bytes::from_static(b"\x00\x00\x7f\xff\xff\xff")).is_err());
    }
}
