//! What a running broker knows of its cluster, for whoever runs it.

use std::rc::Weak;

use crate::context::Context;
use crate::metadata::image::NO_LEADER;

/// A look at one broker's image of the cluster. It knows nothing more once the broker is gone.
#[derive(Clone, Debug, Default)]
pub struct View(Weak<Context>);

impl View {
    pub(crate) fn new(context: Weak<Context>) -> Self {
        Self(context)
    }

    /// How far the image goes: of two brokers' images the one with the larger number is the newer.
    pub fn applied(&self) -> Option<i64> {
        self.0.upgrade().map(|c| c.metadata.applied())
    }

    /// The leader of the metadata quorum and its epoch, as this broker knows it.
    pub fn controller(&self) -> Option<(i32, i32)> {
        let (epoch, leader) = self.0.upgrade()?.metadata.leader();
        leader.map(|leader| (epoch, leader))
    }

    /// How many brokers are registered and may lead.
    pub fn active_brokers(&self) -> usize {
        let Some(context) = self.0.upgrade() else { return 0 };
        context.metadata.with(|image| image.brokers.values().filter(|b| b.is_active()).count())
    }

    /// Partitions that have no leader, or replicas out of sync, as text.
    pub fn under_replicated(&self) -> Vec<String> {
        let Some(context) = self.0.upgrade() else { return Vec::new() };
        context.metadata.with(|image| {
            let all =
                image.topics.values().flat_map(|t| t.partitions.iter().map(move |(p, state)| (&t.name, p, state)));
            let some = all.filter(|(.., s)| s.leader == NO_LEADER || s.isr.len() < s.replicas.len());
            some.map(|(name, p, s)| format!("{name}-{p}: leader {}, in sync {:?} of {:?}", s.leader, s.isr, s.replicas))
                .collect()
        })
    }

    /// Leader and replicas of a partition. `None` if it has no leader or does not exist, as far as this broker knows.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<(i32, Vec<i32>)> {
        let context = self.0.upgrade()?;
        context.metadata.with(|image| {
            let state = image.topic(topic)?.partitions.get(&partition)?;
            (state.leader != NO_LEADER).then(|| (state.leader, state.replicas.clone()))
        })
    }
}
