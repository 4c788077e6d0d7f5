//! What the output must be, from the log alone.
//!
//! Which records were late depends on the run, so the late topic is taken at its word here and checked against the
//! rest: every input record is accepted, late or dead, exactly once; the newest pane of every window is the fold of its
//! accepted records; no identity appears twice (once, for an at-least-once sink). That lateness itself was judged
//! rightly is the business of the replay of decisions, which lives with the invariants.

use std::collections::{BTreeMap, BTreeSet};

use client::{ClientConfig, Record};
use serde_json::Value;
use streamproof_processor::job::Guarantee;

use super::{Job, read_topic, text};

type Place = (i32, i64);

#[derive(Default, Debug, PartialEq)]
struct Fold {
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
}

pub async fn check(config: &ClientConfig, job: &Job, ends: &BTreeMap<i32, i64>) {
    let exactly_once = job.config.sink.guarantee == Guarantee::Transactional;
    let sink = &job.config.sink;
    let input = read_topic(config, &job.config.source.topic).await;
    let late = places(&read_topic(config, &sink.late_topic).await, exactly_once);
    let dead = places(&read_topic(config, &sink.dlq_topic).await, exactly_once);
    let mut expected: BTreeMap<(String, i64), Fold> = BTreeMap::new();
    let (mut accepted, mut unseen) = (0, late.union(&dead).copied().collect::<BTreeSet<Place>>());
    assert!(late.is_disjoint(&dead));
    for (partition, record) in input.iter().filter(|(p, r)| r.offset < ends[p]) {
        let place = (*partition, record.offset);
        unseen.remove(&place);
        let parsed: Result<Value, _> = serde_json::from_str(&text(&record.value));
        let Ok(parsed) = parsed else {
            assert!(dead.contains(&place), "{place:?} is poison");
            continue;
        };
        assert!(!dead.contains(&place), "{place:?} is good");
        if late.contains(&place) {
            continue;
        }
        accepted += 1;
        let t = parsed["t"].as_i64().unwrap();
        let start = (t as f64 / 100.0).floor() as i64 * 100;
        let v = parsed["value"].as_i64().unwrap();
        let fold = expected.entry((parsed["key"].as_str().unwrap().to_owned(), start)).or_insert(Fold {
            min: i64::MAX,
            max: i64::MIN,
            ..Fold::default()
        });
        fold.count += 1;
        fold.sum += i128::from(v);
        fold.min = fold.min.min(v);
        fold.max = fold.max.max(v);
    }
    assert!(unseen.is_empty(), "side outputs without an input: {unseen:?}");
    assert!(!late.is_empty() && !dead.is_empty() && accepted > 0, "the test shows nothing");

    let mut newest: BTreeMap<(String, i64), (u64, Fold)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (_, record) in read_topic(config, &sink.topic).await {
        let row: Value = serde_json::from_str(&text(&record.value)).unwrap();
        let key = row["key"].as_str().unwrap().to_owned();
        assert_eq!(text(&record.key), key);
        let (start, pane) = (row["window_start"].as_i64().unwrap(), row["pane"].as_u64().unwrap());
        assert_eq!(row["window_end"].as_i64().unwrap(), start + 100);
        assert_eq!(row["op"], if pane == 0 { "+I" } else { "+U" });
        let new = seen.insert((key.clone(), start, pane));
        assert!(new || !exactly_once, "{key} {start} pane {pane} twice");
        let fold = Fold {
            count: row["count"].as_u64().unwrap(),
            sum: i128::from(row["sum"].as_i64().unwrap()),
            min: row["min"].as_i64().unwrap(),
            max: row["max"].as_i64().unwrap(),
        };
        let slot = newest.entry((key, start)).or_default();
        if pane >= slot.0 {
            *slot = (pane, fold);
        }
    }
    let found: BTreeMap<_, _> = newest.iter().map(|(id, (_, fold))| (id, fold)).collect();
    let wanted: BTreeMap<_, _> = expected.iter().collect();
    assert_eq!(found, wanted);
    for (key, start) in newest.keys() {
        let panes = seen.iter().filter(|(k, s, _)| (k, s) == (key, start)).count() as u64;
        assert_eq!(newest[&(key.clone(), *start)].0 + 1, panes, "panes of {key} {start} have gaps");
    }
    epochs(config, job).await;
    decisions(config, job).await;
}

/// Where side output records came from.
fn places(records: &[(i32, Record)], exactly_once: bool) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    for (_, record) in records {
        let number =
            |name: &str| -> i64 { String::from_utf8(record.header(name).unwrap().to_vec()).unwrap().parse().unwrap() };
        let new = places.insert((number("source.partition") as i32, number("source.offset")));
        assert!(new || !exactly_once, "a side output record twice: {:?} {}", record, number("source.offset"));
    }
    places
}

/// Each epoch once, in one generation, by all tasks, without gaps.
async fn epochs(config: &ClientConfig, job: &Job) {
    if job.config.sink.guarantee == Guarantee::AtLeastOnce {
        return;
    }
    let mut epochs: BTreeMap<u64, BTreeMap<String, u64>> = BTreeMap::new();
    for (_, record) in read_topic(config, "job-epochs").await {
        let marker: Value = serde_json::from_str(&text(&record.value)).unwrap();
        let task = marker["task"].as_str().unwrap().to_owned();
        let tasks = epochs.entry(marker["n"].as_u64().unwrap()).or_default();
        assert_eq!(tasks.insert(task, marker["generation"].as_u64().unwrap()), None, "{marker} twice");
    }
    assert!(!epochs.is_empty());
    for ((n, tasks), expected) in epochs.iter().zip(1..) {
        assert_eq!(*n, expected, "epochs have gaps");
        let names: Vec<&str> = tasks.keys().map(String::as_str).collect();
        assert_eq!(names, ["source-0", "source-1", "window-0", "window-1"], "epoch {n}");
        assert_eq!(tasks.values().collect::<BTreeSet<_>>().len(), 1, "epoch {n} in two generations");
    }
}

/// Per (generation, task) the committed entries have consecutive numbers; every valid record is judged once.
async fn decisions(config: &ClientConfig, job: &Job) {
    let Some(topic) = &job.config.sink.decisions_topic else { return };
    if job.config.sink.guarantee == Guarantee::AtLeastOnce {
        return;
    }
    let mut last: BTreeMap<(u64, String), u64> = BTreeMap::new();
    let mut watermarks: BTreeMap<(u64, String, String), i64> = BTreeMap::new();
    for (_, record) in read_topic(config, topic).await {
        let entry: Value = serde_json::from_str(&text(&record.value)).unwrap();
        let id = (entry["generation"].as_u64().unwrap(), entry["task"].as_str().unwrap().to_owned());
        let seq = entry["seq"].as_u64().unwrap();
        let expected = last.get(&id).map_or(0, |s| s + 1);
        assert_eq!(seq, expected, "{id:?}");
        last.insert(id.clone(), seq);
        let advance = &entry["decision"]["advance"];
        if let Some(w) = advance["change"]["watermark"].as_i64() {
            let input = advance["input"].to_string();
            let before = watermarks.insert((id.0, id.1, input), w);
            assert!(before.is_none_or(|b| b < w), "W fell from {before:?} to {w}");
        }
    }
    assert!(last.len() >= 4);
}
