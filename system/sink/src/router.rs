//! Which partition a record goes to: Kafka's default partitioner over the partition counts of the sink's topics.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::{Admin, Client, partitioner};

use crate::writer::SinkError;

#[derive(Debug, Default)]
pub(crate) struct Router {
    partitions: BTreeMap<String, i32>,
    keyless: i32,
}

impl Router {
    /// Learns the partition counts of `topics`, which must exist.
    pub async fn discover(client: &Client, topics: &[String]) -> Result<Self, SinkError> {
        const VERB: &str = "look up its topics";
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let metadata = Admin::new(client.clone()).metadata(&names).await.map_err(|e| SinkError::new(VERB, e))?;
        let mut partitions = BTreeMap::new();
        for topic in topics {
            let count = metadata.topics.get(topic).map_or(0, |t| t.partitions.len());
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            if count == 0 {
                return Err(SinkError::new(VERB, format!("topic {topic:?} is not there")));
            }
            partitions.insert(topic.clone(), count);
        }
        Ok(Self { partitions, keyless: 0 })
    }

    pub fn partition(&mut self, topic: &str, key: Option<&Bytes>) -> Result<i32, SinkError> {
        let unknown = || SinkError::new("write", format!("topic {topic:?} is not one of the sink's"));
        let count = *self.partitions.get(topic).ok_or_else(unknown)?;
        Ok(match key {
            Some(key) => partitioner::murmur2_partition(key, count),
            None => {
                self.keyless = self.keyless.wrapping_add(1) & i32::MAX;
                self.keyless % count
            }
        })
    }
}
