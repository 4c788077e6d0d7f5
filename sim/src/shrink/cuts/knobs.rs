//! Settings: each to the simplest value that the generators draw.

use scenarios::Plan;
use scenarios::plan::{Compression, Knobs};

use super::super::search::Search;
use super::records::forget_missing_nodes;

struct Setting {
    name: &'static str,
    simplify: fn(&mut Knobs),
}

const fn setting(name: &'static str, simplify: fn(&mut Knobs)) -> Setting {
    Setting { name, simplify }
}

/// No setting here is a promise (`flush`) or a limit that makes a failure of its own (`heartbeat_timeout_ms`, say).
const SETTINGS: &[Setting] = &[
    setting("world.loss_per_million", |k| k.world.loss_per_million = 0),
    setting("world.partial_per_million", |k| k.world.partial_per_million = 0),
    setting("world.bandwidth", |k| k.world.bandwidth = None),
    setting("world.links", |k| k.world.links.clear()),
    setting("world.latency_us", |k| k.world.latency_us = (1_000, 1_000)),
    setting("world.sync_latency_us", |k| k.world.sync_latency_us = (1_000, 1_000)),
    setting("world.disk_bytes", |k| k.world.disk_bytes = None),
    setting("broker.segment_bytes", |k| k.broker.segment_bytes = 1024 * 1024),
    setting("broker.index_interval_bytes", |k| k.broker.index_interval_bytes = 4096),
    setting("broker.transactions_partitions", |k| k.broker.transactions_partitions = 1),
    setting("client.compression", |k| k.client.compression = Compression::None),
    setting("client.linger_ms", |k| k.client.linger_ms = 0),
    setting("client.batch_bytes", |k| k.client.batch_bytes = 16 * 1024),
    setting("client.max_in_flight", |k| k.client.max_in_flight = 1),
    setting("client.fetch_max_bytes", |k| k.client.fetch_max_bytes = 1024 * 1024),
    setting("processor.source_tasks", |k| k.processor.iter_mut().for_each(|p| p.source_tasks = 1)),
    setting("processor.window_tasks", |k| k.processor.iter_mut().for_each(|p| p.window_tasks = 1)),
    setting("processor.key_groups", |k| k.processor.iter_mut().for_each(|p| p.key_groups = 8)),
    setting("processor.chunk_records", |k| k.processor.iter_mut().for_each(|p| p.chunk_records = 64)),
    setting("processor.channel_capacity", |k| k.processor.iter_mut().for_each(|p| p.channel_capacity = 64)),
    setting("processor.sink_partitions", |k| k.processor.iter_mut().for_each(|p| p.sink_partitions = 1)),
    setting("processor.checkpoints_retained", |k| k.processor.iter_mut().for_each(|p| p.checkpoints_retained = 1)),
];

/// All that differ at once, then in ever smaller groups.
pub fn simple(search: &mut Search<'_>) {
    let best = search.best();
    let differing: Vec<usize> = (0..SETTINGS.len()).filter(|i| simplified(best, |n| n == *i) != *best).collect();
    search.leave_out(
        "knob",
        differing.clone(),
        |i| SETTINGS[*i].name.to_owned(),
        |plan, keep| simplified(plan, |i| differing.contains(&i) && !keep.contains(&i)),
    );
}

fn simplified(plan: &Plan, which: impl Fn(usize) -> bool) -> Plan {
    let mut plan = plan.clone();
    for (_, setting) in SETTINGS.iter().enumerate().filter(|(i, _)| which(*i)) {
        (setting.simplify)(&mut plan.knobs);
    }
    // A partition that is gone may be named by a fault.
    forget_missing_nodes(&mut plan);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_stays_valid_and_is_its_own() {
        let plan = scenarios::generate("swarm", 3).unwrap();
        let mut names: Vec<&str> = SETTINGS.iter().map(|s| s.name).collect();
        for (i, setting) in SETTINGS.iter().enumerate() {
            let simple = simplified(&plan, |n| n == i);
            assert_eq!(simple.validate(), Ok(()), "{}", setting.name);
            assert_eq!(simplified(&simple, |n| n == i), simple, "{}", setting.name);
        }
        assert_eq!(simplified(&plan, |_| true).validate(), Ok(()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
