//! Changes of in-sync sets (`kafka.server:type=ReplicaManager`), as the committed metadata tells them to the leader.
//!
//! Kafka counts what a leader asked for. Here a set that the controller changed by itself counts too, as when it fences a
//! broker: at whoever leads afterwards, so that the sum over brokers is the number of changes. What lies between two
//! images that this broker acted by is not seen.

use metrics::{Counter, Snapshot};

#[derive(Debug, Default)]
pub(crate) struct Replication {
    shrinks: Counter,
    expands: Counter,
    pub failed_updates: Counter,
}

impl Replication {
    /// The in-sync set of a partition that is led here went from one to the other.
    pub fn isr_changed(&self, before: &[i32], now: &[i32]) {
        if before.iter().any(|id| !now.contains(id)) {
            self.shrinks.inc();
        }
        if now.iter().any(|id| !before.contains(id)) {
            self.expands.inc();
        }
    }

    pub fn measure(&self, out: &mut Snapshot) {
        for (name, help, counter) in [
            ("kafka_server_replicamanager_isrshrinks_total", "In-sync sets that lost a member", &self.shrinks),
            ("kafka_server_replicamanager_isrexpands_total", "In-sync sets that won a member", &self.expands),
            (
                "kafka_server_replicamanager_failedisrupdates_total",
                "Changes of in-sync sets that the controller refused, or did not answer",
                &self.failed_updates,
            ),
        ] {
            out.counter(name, help, &[], counter.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_go_and_that_come_are_told_apart() {
        let r = Replication::default();
        let count = || (r.shrinks.get(), r.expands.get());
        r.isr_changed(&[0, 1, 2], &[2, 1, 0]);
        assert_eq!(count(), (0, 0));
        r.isr_changed(&[0, 1, 2], &[1]);
        assert_eq!(count(), (1, 0));
        r.isr_changed(&[1], &[1, 0, 2]);
        assert_eq!(count(), (1, 1));
        r.isr_changed(&[0, 1], &[0, 2]);
        assert_eq!(count(), (2, 2));
    }
}
