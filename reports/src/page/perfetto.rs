//! A run as Chrome's trace events, which Perfetto and chrome://tracing open: a track a lane, spans for bands and
//! operations, instants for marks and faults, arrows for messages.

use serde_json::{Value, json};

use super::picture::Picture;

/// The groups of lanes are its processes.
const GROUPS: [&str; 5] = ["nodes", "partitions", "tasks", "job", "transactions"];

/// The whole file. Times are microseconds, as the format has them.
pub fn perfetto(picture: &Picture) -> String {
    let text = |i: u32| picture.strings.get(i as usize).map(String::as_str).unwrap_or_default();
    let group = |name: &str| GROUPS.iter().position(|g| *g == name).unwrap_or(GROUPS.len());
    let mut events: Vec<Value> = Vec::new();
    let name_of = |what: &str, pid: usize, tid: usize, name: &str| json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}});
    for (pid, name) in GROUPS.iter().enumerate() {
        events.push(name_of("process_name", pid, 0, name));
    }
    for (tid, lane) in picture.lanes.iter().enumerate() {
        let pid = group(lane.group);
        events.push(name_of("thread_name", pid, tid, &lane.name));
        for band in &lane.bands {
            let dur = (band.1 - band.0).max(0.0) * 1000.0;
            events.push(json!({"ph": "X", "name": text(band.4), "cat": band.3, "ts": band.0 * 1000.0, "dur": dur, "pid": pid, "tid": tid}));
        }
        for mark in &lane.marks {
            events.push(json!({"ph": "i", "s": "t", "name": text(mark.2), "cat": mark.1, "ts": mark.0 * 1000.0, "pid": pid, "tid": tid}));
        }
    }
    let lane_of = |name: &str| picture.lanes.iter().position(|lane| lane.name == name);
    for op in &picture.ops {
        let Some(tid) = lane_of(&format!("client-{}", op.0)) else { continue };
        // They overlap, so they are asynchronous spans.
        let name = format!("{} {}: {}", text(op.2), op.1, text(op.9));
        let id = format!("{}.{}", op.0, op.1);
        let end = if op.7 < 0.0 { picture.end } else { op.7 };
        for (ph, at) in [("b", op.6), ("e", end)] {
            events.push(
                json!({"ph": ph, "cat": "operation", "name": name, "id": id, "ts": at * 1000.0, "pid": 0, "tid": tid}),
            );
        }
    }
    for (from, _, kind, target, effect, struck) in &picture.faults {
        for tid in struck {
            let name = format!("{kind} {target}: {effect}");
            events.push(
                json!({"ph": "i", "s": "p", "name": name, "cat": "fault", "ts": from * 1000.0, "pid": 0, "tid": tid}),
            );
        }
    }
    for (id, (sent, arrived, from, to, bytes)) in picture.messages.iter().enumerate() {
        let name = format!("{bytes} bytes");
        events.push(
            json!({"ph": "s", "cat": "message", "name": name, "id": id, "ts": sent * 1000.0, "pid": 0, "tid": from}),
        );
        events.push(json!({"ph": "f", "bp": "e", "cat": "message", "name": name, "id": id, "ts": arrived * 1000.0, "pid": 0, "tid": to}));
    }
    json!({"displayTimeUnit": "ms", "traceEvents": events, "otherData": {"run": picture.name, "verdict": picture.verdict}}).to_string()
}
