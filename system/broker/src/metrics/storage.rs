//! What partitions and the cleaner ask of the disk (`kafka.log:type=LogFlushStats`, `type=LogCleanerManager`).
//!
//! A failed flush stops the broker, so it is seen only if the counters outlive it: `serve` hands them to the next start.

use std::cell::Cell;

use metrics::{Counter, Snapshot};

use super::gauge;

#[derive(Debug, Default)]
pub(crate) struct Storage {
    pub flushes: Counter,
    pub failed_flushes: Counter,
    /// Appends refused without harm: the disk was full.
    pub refused_appends: Counter,
    /// The largest share of a compacted log that was not clean, as of the cleaner's last round; 0 if none was due.
    pub dirtiest: Cell<f64>,
    /// Logs that the last round had no room to clean.
    pub not_cleaned: Cell<usize>,
}

impl Storage {
    pub fn measure(&self, out: &mut Snapshot) {
        for (name, help, counter) in [
            ("kafka_log_logflushstats_logflush_total", "Flushes of partitions that succeeded", &self.flushes),
            ("kafka_log_logflushstats_failures_total", "Flushes of partitions that failed", &self.failed_flushes),
            (
                "kafka_log_logmanager_refusedappends_total",
                "Appends that the disk had no room for",
                &self.refused_appends,
            ),
        ] {
            out.counter(name, help, &[], counter.get());
        }
        gauge(
            out,
            "kafka_log_logcleanermanager_max_dirty_percent",
            "Largest dirty share of the logs that the cleaner's last round was to clean",
            (100.0 * self.dirtiest.get()) as usize,
        );
        gauge(
            out,
            "kafka_log_logcleanermanager_uncleanable_partitions_count",
            "Logs that the cleaner's last round had no room to clean",
            self.not_cleaned.get(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cleaners_last_round_is_told() {
        let storage = Storage::default();
        storage.dirtiest.set(0.625);
        storage.not_cleaned.set(2);
        let mut out = Snapshot::default();
        storage.measure(&mut out);
        let text = out.render();
        assert!(text.contains("kafka_log_logcleanermanager_max_dirty_percent 62\n"), "{text}");
        assert!(text.contains("kafka_log_logcleanermanager_uncleanable_partitions_count 2\n"), "{text}");
    }
}
