//! What partitions ask of the disk (`kafka.log:type=LogFlushStats`).
//!
//! A failed flush stops the broker, so it is seen only if the counters outlive it: `serve` hands them to the next start.

use metrics::{Counter, Snapshot};

#[derive(Debug, Default)]
pub(crate) struct Storage {
    pub flushes: Counter,
    pub failed_flushes: Counter,
    /// Appends refused without harm: the disk was full.
    pub refused_appends: Counter,
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
    }
}
