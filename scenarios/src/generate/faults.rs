//! Faults drawn from a menu, placed where the action is: inside the active period, on links that carry traffic, at
//! actions that every run executes often.

use super::stream;
use crate::plan::{Action, CrashPoint, Family, Fault, NodeName, Persistence, Plan, Role, Target, Trigger, When};
use seed::Rng;

/// Where faults may strike.
#[derive(Clone, Copy, Debug)]
pub struct FaultSpace {
    /// Timed faults start within this stretch, in milliseconds since the clients started.
    pub from_ms: u64,
    pub to_ms: u64,
}

/// How many faults of each kind, at most (each count is drawn from `low..=high`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Menu {
    pub net: (u64, u64),
    pub disk: (u64, u64),
    pub clock: (u64, u64),
    pub process: (u64, u64),
    pub crash_points: (u64, u64),
    pub duplicates: (u64, u64),
    /// Power loss on this role.
    pub power: Option<Role>,
    /// Crash points may lose power too.
    pub power_at_crash_points: bool,
}

const BROKER: Target = Target::Node(NodeName::new(Role::Broker, 0));
const COORDINATOR: Target = Target::Node(NodeName::new(Role::Coordinator, 0));

/// An action that driver loops execute often, as a place for crash points.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Of the node.
    pub role: Role,
    pub label: &'static str,
    /// Every run reaches it at least this often within the active period, on each node that reaches it at all.
    pub most: u64,
    /// Only with transactions, of a client or of a processor's sink.
    pub transactions: bool,
}

const fn label(role: Role, label: &'static str, most: u64, transactions: bool) -> Label {
    Label { role, label, most, transactions }
}

/// Where crash points are put. A label that no driver has is never reached: sweeps show it as a fault that never bites.
pub const LABELS: &[Label] = &[
    label(Role::Broker, "append", 60, false),
    label(Role::Broker, "flush", 40, false),
    label(Role::Broker, "publish", 40, false),
    label(Role::Broker, "ack", 40, false),
    label(Role::Broker, "txn.marker", 5, true),
    label(Role::Broker, "disk.write", 40, false),
    label(Role::Broker, "disk.sync", 30, false),
    label(Role::Broker, "net.write", 60, false),
    label(Role::Coordinator, "checkpoint.trigger", 4, false),
    label(Role::Coordinator, "checkpoint.store", 3, false),
    label(Role::Coordinator, "checkpoint.complete", 4, false),
    label(Role::Coordinator, "disk.sync", 3, false),
    label(Role::Coordinator, "disk.write", 3, false),
    label(Role::Worker, "barrier.send", 2, false),
    label(Role::Worker, "sink.prepare", 3, false),
    label(Role::Worker, "sink.commit", 3, false),
    label(Role::Worker, "window.fire", 10, false),
    label(Role::Worker, "records.send", 10, false),
    label(Role::Worker, "net.write", 60, false),
];

/// Adds faults to `plan`. Families in `plan.families_off` add nothing, and their streams are not read, so that switching
/// one off leaves the others' faults as they were.
pub fn faults(plan: &mut Plan, space: FaultSpace, menu: Menu) {
    let mut all = Vec::new();
    for (family, count) in [
        (Family::Net, menu.net),
        (Family::Disk, menu.disk),
        (Family::Clock, menu.clock),
        (Family::Process, menu.process),
        (Family::CrashPoints, menu.crash_points),
        (Family::Duplicates, menu.duplicates),
    ] {
        if plan.families_off.contains(&family) {
            continue;
        }
        let mut rng = stream(plan, "faults", &[family as u64]);
        for _ in 0..rng.range(count.0, count.1) {
            let at = rng.range(space.from_ms, space.to_ms);
            let (trigger, action) = match family {
                Family::Net => (Trigger::At { ms: at }, net(plan, &mut rng)),
                Family::Disk => (Trigger::At { ms: at }, disk(&mut rng)),
                Family::Clock => (Trigger::At { ms: at }, clock(plan, &mut rng)),
                Family::Process => (Trigger::At { ms: at }, process(plan, &mut rng, menu)),
                Family::CrashPoints => match crash_point(plan, &mut rng, space, menu) {
                    Some(both) => both,
                    None => continue,
                },
                Family::Duplicates => (Trigger::At { ms: at }, duplicate(plan, &mut rng)),
                Family::EventTime => continue,
            };
            // A disk that is full for moments, again and again, refuses a batch and takes the next: harder than one that
            // stays full.
            let flaps = if matches!(action, Action::DiskFull { .. }) { rng.range(0, 5) } else { 0 };
            let mut end = at + action.duration_ms();
            for _ in 0..flaps {
                let (ms, for_ms) = (end + rng.range(50, 300), rng.range(100, 300));
                end = ms + for_ms;
                let action = Action::DiskFull { node: BROKER, for_ms };
                all.push(Fault { id: 0, family, trigger: Trigger::At { ms }, action });
            }
            all.push(Fault { id: 0, family, trigger, action });
        }
    }
    let first = plan.faults.iter().map(|f| f.id + 1).max().unwrap_or(0);
    for (i, fault) in all.iter_mut().enumerate() {
        fault.id = first + i as u32;
    }
    plan.faults.extend(all);
}

/// A pair of nodes that talk to each other all the time, in a random direction.
fn busy_link(plan: &Plan, rng: &mut Rng) -> (Target, Target) {
    let other = peer_of_broker(plan, rng);
    if rng.chance(1, 2) { (BROKER, other) } else { (other, BROKER) }
}

/// A producer, or a worker when there is a processor.
fn peer_of_broker(plan: &Plan, rng: &mut Rng) -> Target {
    let workers = plan.topology.workers;
    if workers > 0 && rng.chance(2, 3) {
        return Target::Node(NodeName::new(Role::Worker, rng.range(0, u64::from(workers) - 1) as u32));
    }
    let clients: Vec<u32> = plan.clients.iter().map(|c| c.id).collect();
    Target::Node(NodeName::new(Role::Client, *rng.choose(&clients)))
}

/// Two processor nodes, if there are any.
fn processor_link(plan: &Plan, rng: &mut Rng) -> Option<(Target, Target)> {
    let workers = u64::from(plan.topology.workers);
    if workers < 2 {
        return None;
    }
    let a = rng.range(0, workers - 1);
    let worker = Target::Node(NodeName::new(Role::Worker, a as u32));
    if rng.chance(1, 2) {
        return Some((worker, COORDINATOR));
    }
    let b = (a + rng.range(1, workers - 1)) % workers;
    Some((worker, Target::Node(NodeName::new(Role::Worker, b as u32))))
}

fn net(plan: &Plan, rng: &mut Rng) -> Action {
    let (from, to) = match rng.chance(1, 3) {
        true => processor_link(plan, rng).unwrap_or_else(|| busy_link(plan, rng)),
        false => busy_link(plan, rng),
    };
    let short = rng.range(200, 2_500);
    match rng.range(0, 7) {
        0 => Action::Cut { from, to, both: true, for_ms: short },
        1 | 2 => Action::Cut { from, to, both: false, for_ms: short },
        3 => Action::Hold { from, to, for_ms: short },
        4 => Action::Reset { a: from, b: to },
        5 => Action::ConnectHang { from: to_client(from, to), to: to_server(from, to), for_ms: short },
        6 => Action::Loss { from, to, per_million: rng.range(50_000, 300_000) as u32, for_ms: 2 * short },
        _ => {
            let low = rng.range(20_000, 80_000);
            Action::Slow { from, to, latency_us: (low, low + rng.range(1_000, 200_000)), for_ms: 2 * short }
        }
    }
}

/// Of a link's ends, the one that connects: brokers and coordinators only listen.
fn to_client(a: Target, b: Target) -> Target {
    if a == BROKER || a == COORDINATOR { b } else { a }
}

fn to_server(a: Target, b: Target) -> Target {
    if a == BROKER || a == COORDINATOR { a } else { b }
}

fn disk(rng: &mut Rng) -> Action {
    match rng.range(0, 4) {
        0 => Action::FsyncError { node: BROKER, restart_after_ms: rng.range(300, 1_500) },
        1 | 2 => Action::DiskFull { node: BROKER, for_ms: rng.range(300, 1_500) },
        3 => Action::Power { node: BROKER, unsynced: persistence(rng), restart_after_ms: rng.range(300, 1_500) },
        _ => Action::DiskStall { node: BROKER, for_ms: rng.range(200, 2_500) },
    }
}

fn persistence(rng: &mut Rng) -> Persistence {
    *rng.choose(&[Persistence::Kept, Persistence::Lost, Persistence::Prefix, Persistence::Subset])
}

fn clock(plan: &Plan, rng: &mut Rng) -> Action {
    let system: Vec<NodeName> = plan.nodes().into_iter().filter(|n| n.role != Role::Client).collect();
    let node = Target::Node(*rng.choose(&system));
    match rng.range(0, 2) {
        0 => Action::ClockOffset { node, ms: rng.range_i64(-86_400_000, 86_400_000) },
        1 => Action::ClockStep { node, by_ms: rng.range_i64(-7_200_000, 7_200_000) },
        _ => Action::ClockDrift { node, ppm: rng.range_i64(-50_000, 50_000) as i32 },
    }
}

fn process(plan: &Plan, rng: &mut Rng, menu: Menu) -> Action {
    let node = match plan.topology.workers {
        0 => match rng.chance(4, 5) {
            true => BROKER,
            false => producer(plan, rng),
        },
        workers => match rng.range(0, 9) {
            0..3 => BROKER,
            3..5 => COORDINATOR,
            5..9 => Target::Node(NodeName::new(Role::Worker, rng.range(0, u64::from(workers) - 1) as u32)),
            _ => producer(plan, rng),
        },
    };
    if menu.power == Some(Role::Broker) && node == BROKER {
        return Action::Power { node, unsynced: persistence(rng), restart_after_ms: rng.range(200, 1_500) };
    }
    match rng.range(0, 3) {
        0 => Action::Pause { node, for_ms: rng.range(200, 3_000) },
        _ => Action::Crash { node, restart_after_ms: rng.range(100, 1_500) },
    }
}

fn producer(plan: &Plan, rng: &mut Rng) -> Target {
    let producers: Vec<u32> =
        plan.clients.iter().filter(|c| matches!(c.role, crate::plan::ClientRole::Producer(_))).map(|c| c.id).collect();
    Target::Node(NodeName::new(Role::Client, *rng.choose(&producers)))
}

/// A lost reply and the retry that follows, or a request given up whose bytes arrive after its repetition.
fn duplicate(plan: &Plan, rng: &mut Rng) -> Action {
    let peer = peer_of_broker(plan, rng);
    match rng.chance(1, 2) {
        true => Action::Cut { from: BROKER, to: peer, both: false, for_ms: rng.range(800, 2_500) },
        false => Action::Straggle {
            from: peer,
            to: BROKER,
            per_million: rng.range(50_000, 300_000) as u32,
            up_to_ms: rng.range(1_000, 4_000),
            for_ms: rng.range(500, 2_500),
        },
    }
}

fn crash_point(plan: &Plan, rng: &mut Rng, space: FaultSpace, menu: Menu) -> Option<(Trigger, Action)> {
    let transactions = plan.clients.iter().any(|c| match &c.role {
        crate::plan::ClientRole::Producer(p) => p.transactional,
        crate::plan::ClientRole::Reader(_) => false,
    });
    let processor = plan.job.is_some();
    let usable: Vec<_> = LABELS
        .iter()
        .filter(|l| !l.transactions || transactions || processor)
        .filter(|l| processor || !matches!(l.role, Role::Coordinator | Role::Worker))
        .collect();
    if usable.is_empty() {
        return None;
    }
    let &&Label { role, label, most, .. } = rng.choose(&usable);
    let node = Target::Role(role);
    let point = CrashPoint {
        node,
        label: label.to_owned(),
        when: if rng.chance(1, 2) { When::Before } else { When::After },
        partition: None,
        nth: rng.range(1, most) as u32,
        // Early enough that enough of the run is left for the count to be reached.
        after_ms: rng.range(space.from_ms, space.from_ms + (space.to_ms - space.from_ms) / 2),
    };
    let restart_after_ms = rng.range(100, 1_500);
    let action = match rng.range(0, 9) {
        0 => Action::Pause { node, for_ms: rng.range(200, 3_000) },
        1 => Action::Isolate { node, for_ms: rng.range(200, 3_000) },
        2..5 if menu.power_at_crash_points => Action::Power { node, unsynced: persistence(rng), restart_after_ms },
        _ => Action::Crash { node, restart_after_ms },
    };
    Some((Trigger::CrashPoint(point), action))
}
