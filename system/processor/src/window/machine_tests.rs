//! The window machine against its rules, and against an oracle that knows no streams.

use proptest::prelude::*;

use super::*;

const SIZE: i64 = 10;

fn operator(lateness: i64) -> Operator {
    let window = job::WindowConfig {
        assigner: job::Assigner::Tumbling { size_ms: SIZE, offset_ms: 0 },
        allowed_lateness_ms: lateness,
        accumulation: job::Accumulation::Accumulating,
    };
    Operator::new(&window, 8)
}

fn channels(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("source-{i}")).collect()
}

fn machine(lateness: i64, n: usize) -> WindowMachine {
    WindowMachine::new(operator(lateness), &channels(n), &(0..8).collect::<Vec<_>>())
}

fn record(offset: i64, key: &str, t: i64) -> Record {
    Record {
        partition: 0,
        offset,
        event_time_ms: t,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(offset),
        raw_key: None,
        raw_value: None,
    }
}

fn to(m: &mut WindowMachine, ms: i64) -> Vec<Action> {
    m.change(&"source-0".to_owned(), Change::Watermark(Watermark::from_ms(ms)), 0)
}

fn rows(actions: &[Action]) -> Vec<(String, i64, u32, &'static str, Kind)> {
    let row = |a: &Action| match a {
        Action::Emit(r) => Some((r.key_text(), r.window.start, r.pane, r.op.as_str(), r.kind)),
        _ => None,
    };
    actions.iter().filter_map(row).collect()
}

fn lates(actions: &[Action]) -> usize {
    actions.iter().filter(|a| matches!(a, Action::Late(_))).count()
}

#[test]
fn a_window_fires_at_its_last_millisecond_and_not_before() {
    let mut m = machine(0, 1);
    m.records(vec![record(0, "a", 0), record(1, "a", 9)]);
    assert_eq!(rows(&to(&mut m, 8)), []);
    assert_eq!(rows(&to(&mut m, 9)), [("a".into(), 0, 0, "+I", Kind::OnTime)]);
    let late = m.records(vec![record(2, "a", 9)]);
    assert_eq!(lates(&late), 1, "no lateness: purged at once");
    assert!(matches!(late[0], Action::Decide(Decision::Judge { offsets: (2, 2), .. })));
    assert!(matches!(late[1], Action::Decide(Decision::Late { offset: 2, .. })));
}

#[test]
fn behind_records_refire_until_lateness_ends() {
    let mut m = machine(5, 1);
    m.records(vec![record(0, "a", 3)]);
    to(&mut m, 9);
    assert_eq!(rows(&m.records(vec![record(1, "a", 4)])), [("a".into(), 0, 1, "+U", Kind::Late)]);
    assert_eq!(rows(&m.records(vec![record(2, "b", 4)])), [("b".into(), 0, 0, "+I", Kind::Late)]);
    to(&mut m, 13);
    assert_eq!(rows(&m.records(vec![record(3, "a", 4)])), [("a".into(), 0, 2, "+U", Kind::Late)]);
    to(&mut m, 14);
    assert_eq!(lates(&m.records(vec![record(4, "a", 4)])), 1);
    // Behind, but its window is still open: silent.
    let silent = m.records(vec![record(5, "a", 12)]);
    assert_eq!(silent.len(), 1);
    assert_eq!(rows(&to(&mut m, 19)), [("a".into(), 10, 0, "+I", Kind::OnTime)]);
}

#[test]
fn firing_order_is_closing_point_key_group_key() {
    let mut m = machine(0, 1);
    let keys = ["a", "b", "c", "d", "e", "f"];
    for (i, key) in keys.iter().enumerate() {
        m.records(vec![record(i as i64 * 2, key, 15), record(i as i64 * 2 + 1, key, 5)]);
    }
    let fired = rows(&to(&mut m, 100));
    let order = |start: i64| {
        let mut k: Vec<_> = keys.iter().map(|k| (keys::key_group(k.as_bytes(), 8), *k)).collect();
        k.sort_unstable();
        k.into_iter().map(move |(_, k)| (k.to_owned(), start, 0, "+I", Kind::OnTime)).collect::<Vec<_>>()
    };
    assert_eq!(fired, [order(0), order(10)].concat());
}

#[test]
fn an_end_fires_everything() {
    let mut m = machine(5, 2);
    m.records(vec![record(0, "a", 1 << 53)]);
    let [c0, c1] = [&channels(2)[0], &channels(2)[1]];
    assert_eq!(rows(&m.change(c0, Change::End, 0)), []);
    assert_eq!(rows(&m.change(c1, Change::End, 0)).len(), 1);
    assert!(m.is_ended());
    assert!(m.groups.is_empty() && m.purge.is_empty());
}

/// Judged ranges coalesce, but never over a record that fires or is late.
#[test]
fn judgements_cover_each_record_once() {
    let mut m = machine(5, 1);
    to(&mut m, 9);
    let a = m.records(vec![record(0, "a", 20), record(1, "a", 21), record(2, "a", 4), record(3, "a", -9)]);
    let judged: Vec<_> = a
        .iter()
        .filter_map(|a| match a {
            Action::Decide(Decision::Judge { offsets, .. }) => Some(*offsets),
            _ => None,
        })
        .collect();
    assert_eq!(judged, [(0, 1), (2, 2), (3, 3)]);
}

/// Two windows of one key flow together: state merges, a fired one is taken back, its timers go.
#[test]
fn a_merge_moves_state_and_retracts_what_was_fired() {
    #[derive(Debug)]
    struct Touching;
    impl Merge for Touching {
        fn place(&self, assigned: Window, live: &mut dyn Iterator<Item = Window>) -> Placement {
            let near: Vec<_> = live.filter(|w| w.start <= assigned.end && assigned.start <= w.end).collect();
            let start = near.iter().map(|w| w.start).chain([assigned.start]).min().unwrap();
            let end = near.iter().map(|w| w.end).chain([assigned.end]).max().unwrap();
            let window = Window { start, end };
            Placement { window, absorbed: near.into_iter().filter(|w| *w != window).collect() }
        }
    }
    let mut o = operator(20);
    o.merge = Rc::new(Touching);
    let mut m = WindowMachine::new(o, &channels(1), &(0..8).collect::<Vec<_>>());
    m.records(vec![record(0, "a", 5), record(1, "a", 25)]);
    assert_eq!(rows(&to(&mut m, 9)), [("a".into(), 0, 0, "+I", Kind::OnTime)]);
    let merged = m.records(vec![record(2, "a", 15)]);
    assert_eq!(rows(&merged), [("a".into(), 0, 0, "-U", Kind::Late)]);
    let fired = to(&mut m, 29);
    assert_eq!(rows(&fired), [("a".into(), 0, 0, "+I", Kind::OnTime)]);
    assert!(matches!(&fired[2], Action::Emit(r) if r.window == Window { start: 0, end: 30 }));
}

#[derive(Clone, Debug)]
enum Step {
    Record { key: u8, t: i64 },
    Advance { channel: usize, to: i64 },
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..4, -40i64..60).prop_map(|(key, t)| Step::Record { key, t }),
        3 => (0usize..2, -40i64..60).prop_map(|(channel, to)| Step::Advance { channel, to }),
        1 => Just(Step::Restore),
    ]
}

proptest! {
    /// The newest pane of every window equals the fold of the records that were not late for it, by a definition that
    /// knows neither timers nor state; identities are unique; restoring anywhere changes nothing.
    #[test]
    fn equals_a_fold_over_accepted_records(steps in proptest::collection::vec(step(), 1..150), lateness in 0i64..15) {
        let mut m = machine(lateness, 2);
        let mut w = [None::<i64>; 2];
        let mut point = None::<i64>;
        let mut accepted: BTreeMap<(String, i64), (u64, i128)> = BTreeMap::new();
        let mut newest: BTreeMap<(String, i64), (u32, String)> = BTreeMap::new();
        let (mut late, mut out_late) = (0, 0);
        let mut all = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let offset = i as i64;
            match step {
                Step::Record { key, t } => {
                    let start = (*t as f64 / SIZE as f64).floor() as i64 * SIZE;
                    let key = format!("k{key}");
                    if point.is_some_and(|p| start + SIZE - 1 + lateness <= p) {
                        late += 1;
                    } else {
                        let a = accepted.entry((key.clone(), start)).or_default();
                        a.0 += 1;
                        a.1 += i128::from(offset);
                    }
                    all.extend(m.records(vec![record(offset, &key, *t)]));
                }
                Step::Advance { channel, to } => {
                    w[*channel] = Some(w[*channel].map_or(*to, |old| old.max(*to)));
                    if let [Some(a), Some(b)] = w {
                        point = Some(a.min(b));
                    }
                    let change = Change::Watermark(Watermark::from_ms(*to));
                    all.extend(m.change(&channels(2)[*channel], change, 0));
                }
                Step::Restore => {
                    let stored = m.snapshot().into_iter().collect();
                    let groups: Vec<u32> = (0..8).collect();
                    m = WindowMachine::restore(operator(lateness), &channels(2), &groups, &stored).unwrap();
                }
            }
        }
        for c in channels(2) {
            all.extend(m.change(&c, Change::End, 0));
        }
        for action in all {
            match action {
                Action::Emit(r) => {
                    let id = (r.key_text(), r.window.start);
                    let next = newest.get(&id).map_or(0, |(p, _)| p + 1);
                    prop_assert_eq!(r.pane, next, "panes count from 0 without gaps");
                    newest.insert(id, (r.pane, r.to_json(&[job::Aggregate::Count, job::Aggregate::Sum])));
                }
                Action::Late(_) => out_late += 1,
                Action::Decide(_) => {}
            }
        }
        prop_assert_eq!(late, out_late);
        prop_assert_eq!(newest.len(), accepted.len());
        for (id, (count, sum)) in accepted {
            let (_, json) = &newest[&id];
            let expected = format!(r#""count":{count},"sum":{sum}}}"#);
            prop_assert!(json.ends_with(&expected), "{json} against {expected}");
        }
    }
}
