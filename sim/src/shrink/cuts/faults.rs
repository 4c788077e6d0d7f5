//! Faults: gone with their family, gone one by one, shorter, earlier, simpler.

use scenarios::Plan;
use scenarios::plan::{Action, Family, Fault, Persistence, Target, Trigger};

use super::super::search::Search;

/// Whole families. The first candidate has no fault at all.
pub fn families(search: &mut Search<'_>) {
    let mut families: Vec<_> = search.best().faults.iter().map(|f| f.family).collect();
    families.sort();
    families.dedup();
    let name = |family: &Family| format!("faults of {}", family.name());
    search.leave_out("fault family", families, name, |plan, keep| {
        with_faults(plan, |fault| keep.contains(&fault.family).then(|| fault.clone()))
    });
}

pub fn each(search: &mut Search<'_>) {
    let faults: Vec<(u32, &str)> = search.best().faults.iter().map(|f| (f.id, f.action.kind())).collect();
    let name = |(id, kind): &(u32, &str)| format!("fault {id} ({kind})");
    search.leave_out("fault", faults, name, |plan, keep| {
        with_faults(plan, |fault| keep.iter().any(|(id, _)| *id == fault.id).then(|| fault.clone()))
    });
}

/// Each fault that is left: a simpler action, a shorter one, a crash point reached sooner.
pub fn simpler(search: &mut Search<'_>) {
    let ids: Vec<u32> = search.best().faults.iter().map(|f| f.id).collect();
    for id in ids {
        for kind in [action, duration, nth, start] {
            // Several steps: each halves what is left.
            for _ in 0..6 {
                let Some(fault) = search.best().faults.iter().find(|f| f.id == id) else { break };
                let alternatives = kind(fault);
                let simpler = search.replace(
                    &alternatives,
                    |(what, _)| format!("fault {id}: {what}"),
                    |plan, (_, new)| with_faults(plan, |old| Some(if old.id == id { new } else { old }.clone())),
                );
                if !simpler {
                    break;
                }
            }
        }
    }
}

fn with_faults(plan: &Plan, map: impl Fn(&Fault) -> Option<Fault>) -> Plan {
    Plan { faults: plan.faults.iter().filter_map(map).collect(), ..plan.clone() }
}

type Alternatives = Vec<(String, Fault)>;

fn action(fault: &Fault) -> Alternatives {
    let mut out = Alternatives::new();
    let mut add = |what: &str, action: Action| out.push((what.to_owned(), Fault { action, ..fault.clone() }));
    match fault.action {
        Action::Power { node, unsynced, restart_after_ms } => {
            add("a crash, no power loss", Action::Crash { node, restart_after_ms });
            if unsynced != Persistence::Lost {
                add("all unsynced is lost", Action::Power { node, unsynced: Persistence::Lost, restart_after_ms });
            }
        }
        Action::Cut { from, to, both: true, for_ms } => {
            add("cut one way", Action::Cut { from, to, both: false, for_ms });
            add("cut the other way", Action::Cut { from: to, to: from, both: false, for_ms });
        }
        Action::Stop { node } => add("a crash", Action::Crash { node, restart_after_ms: 500 }),
        Action::Split { ref nodes, for_ms } if nodes.len() > 1 => {
            let alone = |node: &Target| Action::Isolate { node: *node, for_ms };
            nodes.iter().for_each(|node| add("one node alone", alone(node)));
        }
        _ => {}
    }
    out
}

fn duration(fault: &Fault) -> Alternatives {
    let now = fault.action.duration_ms();
    below(now, 100, |ms| (format!("{ms} ms, was {now}"), Fault { action: lasting(&fault.action, ms), ..fault.clone() }))
}

fn nth(fault: &Fault) -> Alternatives {
    let Trigger::CrashPoint(point) = &fault.trigger else { return Vec::new() };
    below(u64::from(point.nth), 1, |nth| {
        let mut point = point.clone();
        let what = format!("at the {nth}. {}, was the {}.", point.label, point.nth);
        point.nth = nth as u32;
        (what, Fault { trigger: Trigger::CrashPoint(point), ..fault.clone() })
    })
}

fn start(fault: &Fault) -> Alternatives {
    let now = match &fault.trigger {
        Trigger::At { ms } => *ms,
        Trigger::CrashPoint(point) => point.after_ms,
    };
    below(now, 0, |start| {
        let trigger = match &fault.trigger {
            Trigger::At { .. } => Trigger::At { ms: start },
            Trigger::CrashPoint(point) => {
                let mut point = point.clone();
                point.after_ms = start;
                Trigger::CrashPoint(point)
            }
        };
        (format!("from {start} ms on, was {now}"), Fault { trigger, ..fault.clone() })
    })
}

/// Simpler numbers than `now`, the simplest first.
fn below<T>(now: u64, least: u64, make: impl Fn(u64) -> T) -> Vec<T> {
    let mut values = vec![least, now / 4, now / 2, now * 3 / 4];
    values.retain(|value| (least..now).contains(value));
    values.dedup();
    values.into_iter().map(make).collect()
}

fn lasting(action: &Action, ms: u64) -> Action {
    let mut action = action.clone();
    match &mut action {
        Action::Crash { restart_after_ms, .. }
        | Action::Power { restart_after_ms, .. }
        | Action::Wipe { restart_after_ms, .. }
        | Action::FsyncError { restart_after_ms, .. } => *restart_after_ms = ms,
        Action::Pause { for_ms, .. }
        | Action::Isolate { for_ms, .. }
        | Action::Split { for_ms, .. }
        | Action::Cut { for_ms, .. }
        | Action::Hold { for_ms, .. }
        | Action::Straggle { for_ms, .. }
        | Action::ConnectHang { for_ms, .. }
        | Action::Loss { for_ms, .. }
        | Action::Slow { for_ms, .. }
        | Action::DiskFull { for_ms, .. }
        | Action::DiskStall { for_ms, .. } => *for_ms = ms,
        Action::Reset { .. }
        | Action::Stop { .. }
        | Action::ClockOffset { .. }
        | Action::ClockStep { .. }
        | Action::ClockDrift { .. } => {}
    }
    action
}
