//! The cleaner of a broker: one task for all of its copies, one log at a time, so that its memory is that of one map
//! (`cleaner_dedupe_buffer_bytes`).
//!
//! ```text
//! each cleaner interval     the compacted logs, dirtiest first: read [clean.read], then for each group of segments
//!                           write beside the log [clean.write] ──▶ the partition swaps it in [clean.swap, .remove, .rename]
//!                           at the end the clean part is longer [clean.checkpoint]
//! each retention interval   the logs led here: what is past its age or size goes [retain.delete]; followers follow
//! ```
//! What to do is decided by the log (`log::compaction`, `log::retention`) from settings and clocks. Reading and writing run
//! beside the partition's appends and give way between chunks; only the swap, a few calls, takes its turn among them.

use std::cmp::Ordering;
use std::rc::{Rc, Weak};
use std::time::Duration;

use env::clock;
use env::task::AbortOnDrop;
use log::compaction::Dirty;

use crate::context::Context;
use crate::failure::BrokerError;
use crate::log_settings::LogSettings;
use crate::partition::{Partition, TopicPartition};

/// Starts it; it ends with the handle.
pub(crate) fn start(context: &Rc<Context>) -> AbortOnDrop<()> {
    env::task::spawn(run(Rc::downgrade(context))).abort_on_drop()
}

async fn run(context: Weak<Context>) {
    let mut periods = None;
    loop {
        let Some((cleaning, retaining)) = periods else {
            let Some(context) = context.upgrade() else { return };
            let (clean, retain) = (context.config.cleaner_interval_ms, context.config.retention_check_interval_ms);
            let now = clock::now();
            periods = Some((now + Duration::from_millis(clean), now + Duration::from_millis(retain)));
            continue;
        };
        env::time::sleep_until(cleaning.min(retaining)).await;
        let Some(context) = context.upgrade() else { return };
        let now = clock::now();
        let due = (cleaning <= now, retaining <= now);
        if due.1 {
            retain(&context).await;
        }
        if due.0 {
            clean(&context).await;
        }
        let now = clock::now();
        let next = |due, at, ms| if due { now + Duration::from_millis(ms) } else { at };
        periods = Some((
            next(due.0, cleaning, context.config.cleaner_interval_ms),
            next(due.1, retaining, context.config.retention_check_interval_ms),
        ));
    }
}

/// Every open copy whose topic is still there, with its settings.
fn copies(context: &Context) -> Vec<(Partition, LogSettings)> {
    let copies = context.replicas.copies();
    let settings = |p: &Partition| {
        let id = p.id();
        let of = |t: &crate::metadata::image::TopicState| LogSettings::of(&t.name, &t.configs, &context.config);
        context.metadata.with(|image| image.topics.get(&id.topic_id).map(of))
    };
    copies.into_iter().filter_map(|p| settings(&p).map(|s| (p, s))).collect()
}

async fn retain(context: &Context) {
    for (partition, settings) in copies(context) {
        if !settings.delete || !partition.is_leader() {
            continue;
        }
        if let Some(start) = partition.reader().retained_from(&settings.retention, clock::wall_ms()) {
            env::sometimes!(true, "the oldest segments of a log are past their retention");
            // An error is the partition's: it has told the broker.
            let _ = partition.start_at(start).await;
        }
    }
}

/// Every log that is dirty enough gets one pass.
async fn clean(context: &Context) {
    let mut dirty: Vec<(Dirty, Partition, LogSettings)> = Vec::new();
    for (partition, settings) in copies(context) {
        if settings.compact
            && let Some(found) = partition.reader().cleaner().dirty(&settings.cleaner, clock::wall_ms())
        {
            dirty.push((found, partition, settings));
        }
    }
    // Equals in the order of their ids.
    dirty.sort_by(|(a, ..), (b, ..)| b.ratio.partial_cmp(&a.ratio).unwrap_or(Ordering::Equal));
    let storage = &context.metrics.storage;
    storage.dirtiest.set(dirty.first().map_or(0.0, |(found, ..)| found.ratio));
    let mut not_cleaned = 0;
    for (found, partition, settings) in dirty {
        match partition.clean(found, &settings.cleaner).await {
            Ok(_) => {}
            Err(error) if error.is_clean() => {
                env::sometimes!(true, "a cleaner is stopped by a full disk");
                not_cleaned += 1;
                let TopicPartition { topic, partition, .. } = partition.id();
                tracing::warn!(node = context.config.node_id, topic, partition, %error, "not cleaned");
            }
            Err(error) => context.failure().report(BrokerError::storage(partition.id(), error)),
        }
    }
    storage.not_cleaned.set(not_cleaned);
}
