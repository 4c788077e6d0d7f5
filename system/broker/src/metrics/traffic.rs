//! Records and bytes by topic (`kafka.server:type=BrokerTopicMetrics`).
//!
//! At most [`MAX_TOPICS`] topics are told apart. When there is another one, the counts of a topic that has no partition
//! here any more go to `(other)`, which is no legal name, and if there is none such the new one's do: sums never fall.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use metrics::{Counter, Snapshot};

/// Topics with counts of their own.
pub const MAX_TOPICS: usize = 1_000;
const OTHER: &str = "(other)";

#[derive(Debug, Default)]
pub(crate) struct Traffic {
    topics: RefCell<BTreeMap<String, Rc<TopicTraffic>>>,
    other: Rc<TopicTraffic>,
}

/// Of one topic, shared by its partitions here.
#[derive(Debug, Default)]
pub(crate) struct TopicTraffic {
    messages_in: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    replication_in: Counter,
    replication_out: Counter,
}

impl TopicTraffic {
    pub fn produced(&self, records: i32, bytes: usize) {
        self.messages_in.add(u64::try_from(records).unwrap_or(0));
        self.bytes_in.add(bytes as u64);
    }

    pub fn replicated(&self, bytes: usize) {
        self.replication_in.add(bytes as u64);
    }

    pub fn fetched(&self, bytes: usize, by_replica: bool) {
        if by_replica { &self.replication_out } else { &self.bytes_out }.add(bytes as u64);
    }

    fn counts(&self) -> [&Counter; 5] {
        [&self.messages_in, &self.bytes_in, &self.bytes_out, &self.replication_in, &self.replication_out]
    }
}

impl Traffic {
    /// The counters of a topic, for a partition of it that is open.
    pub fn topic(&self, name: &str) -> Rc<TopicTraffic> {
        let mut topics = self.topics.borrow_mut();
        if let Some(known) = topics.get(name) {
            return Rc::clone(known);
        }
        if topics.len() >= MAX_TOPICS {
            let unused = topics.iter().find(|(_, t)| Rc::strong_count(t) == 1).map(|(name, _)| name.clone());
            let Some(gone) = unused.and_then(|name| topics.remove(&name)) else { return Rc::clone(&self.other) };
            for (sum, count) in self.other.counts().into_iter().zip(gone.counts()) {
                sum.add(count.get());
            }
        }
        Rc::clone(topics.entry(name.to_owned()).or_default())
    }

    pub fn measure(&self, out: &mut Snapshot) {
        let topics = self.topics.borrow();
        let all = topics.iter().map(|(name, t)| (name.as_str(), t));
        for (topic, traffic) in all.chain([(OTHER, &self.other)]) {
            let families = [
                ("kafka_server_brokertopicmetrics_messagesin_total", "Records that producers appended here"),
                ("kafka_server_brokertopicmetrics_bytesin_total", "Bytes that producers appended here"),
                ("kafka_server_brokertopicmetrics_bytesout_total", "Bytes that consumers were sent"),
                ("kafka_server_brokertopicmetrics_replicationbytesin_total", "Bytes fetched from leaders"),
                ("kafka_server_brokertopicmetrics_replicationbytesout_total", "Bytes that followers were sent"),
            ];
            for ((name, help), count) in families.into_iter().zip(traffic.counts()) {
                out.counter(name, help, &[("topic", &topic)], count.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(traffic: &Traffic, topic: &str) -> Option<u64> {
        let mut out = Snapshot::default();
        traffic.measure(&mut out);
        let line = format!("kafka_server_brokertopicmetrics_messagesin_total{{topic=\"{topic}\"}} ");
        out.render().lines().find_map(|l| l.strip_prefix(&line)?.parse().ok())
    }

    #[test]
    fn topics_are_bounded_and_sums_never_fall() {
        let traffic = Traffic::default();
        let held: Vec<_> = (0..MAX_TOPICS).map(|n| traffic.topic(&format!("t{n}"))).collect();
        held.iter().for_each(|t| t.produced(3, 10));
        traffic.topic("one-more").produced(2, 10);
        assert_eq!((messages(&traffic, "one-more"), messages(&traffic, OTHER)), (None, Some(2)));
        drop(held);
        traffic.topic("another").produced(1, 10);
        assert_eq!((messages(&traffic, "another"), messages(&traffic, OTHER)), (Some(1), Some(5)));
    }
}
