//! Carries out the faults of a plan: the timed ones at their times, the crash points by arming them.
//!
//! Each fault maps to the effects it had in the world, so that one that did not bite is named. A node that stops by
//! itself (a broker on a failed sync, say) is started again by its operator, as in life; nobody else restarts nodes.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use scenarios::Plan;
use scenarios::plan::{Action, CrashPoint, Fault, Partition, Persistence, Role, Target, Trigger, When};
use world::{FaultId, LinkLaw, NodeId, PowerLaw, SimTime, Status};

use crate::deploy::{Cluster, disk_law, link_law};

/// Which effects of the world belong to which fault of the plan.
pub(super) type Effects = BTreeMap<u32, Vec<FaultId>>;

/// What is still to be done.
enum Step {
    Strike(Fault),
    Heal(FaultId),
    Restart(NodeId),
    Resume(NodeId),
}

/// Runs all faults until `until`. What is still wrong then is left to the caller's `heal_all`.
pub(super) async fn run(cluster: &Rc<Cluster>, plan: &Plan, start: SimTime, until: SimTime) -> Effects {
    let mut effects = Effects::new();
    // By time, then by order of entry.
    let mut agenda: BTreeMap<(SimTime, u32), Step> = BTreeMap::new();
    for (n, fault) in plan.faults.iter().enumerate() {
        let ms = match &fault.trigger {
            Trigger::At { ms } => *ms,
            Trigger::CrashPoint(point) => point.after_ms,
        };
        agenda.insert((start + Duration::from_millis(ms), n as u32), Step::Strike(fault.clone()));
    }
    let mut entered = plan.faults.len() as u32;
    while let Some(((at, _), step)) = agenda.pop_first() {
        if at >= until {
            break;
        }
        cluster.world.sleep_until(at).await;
        match step {
            Step::Heal(id) => cluster.world.heal(id),
            Step::Restart(node) => cluster.world.restart(node),
            Step::Resume(node) => cluster.world.resume(node),
            Step::Strike(fault) => {
                let (ids, later) = strike(cluster, plan, &fault);
                effects.insert(fault.id, ids);
                for (after, step) in later {
                    agenda.insert((cluster.world.now() + after, entered), step);
                    entered += 1;
                }
            }
        }
    }
    cluster.world.sleep_until(until).await;
    effects
}

/// Starts nodes again whose process ended by itself. Runs as long as the run does.
pub(super) async fn operator(cluster: Rc<Cluster>, node: NodeId, after: Duration) {
    loop {
        cluster.world.wait(node, |s| s == Status::Down).await;
        if cluster.world.exited(node) {
            cluster.world.sleep(after).await;
            if cluster.world.exited(node) {
                cluster.world.restart(node);
            }
        }
        cluster.world.wait(node, |s| s != Status::Down).await;
    }
}

type Later = Vec<(Duration, Step)>;

fn strike(cluster: &Cluster, plan: &Plan, fault: &Fault) -> (Vec<FaultId>, Later) {
    let world = &cluster.world;
    if let Trigger::CrashPoint(point) = &fault.trigger {
        let node = match point.node {
            Target::Role(role) => world::Target::Role(Role::name(role).to_owned()),
            target => world::Target::Node(world.name(resolve(cluster, plan, target, fault.id))),
        };
        return (vec![world.arm(crash_point(point, node, &fault.action))], Vec::new());
    }
    let ms = Duration::from_millis;
    let duration = ms(fault.action.duration_ms());
    let one = |target: &Target| resolve(cluster, plan, *target, fault.id);
    let all = |target: &Target| resolve_all(cluster, plan, *target, fault.id);
    // Two ends: what would come to be both is another broker at the other end.
    let link = |from: &Target, to: &Target| {
        let (from, mut to) = (all(from), all(to));
        to.retain(|node| !from.contains(node));
        if to.is_empty() {
            let others: Vec<_> = cluster.of_role(Role::Broker).into_iter().filter(|n| !from.contains(n)).collect();
            to.extend((!others.is_empty()).then(|| any_of(cluster, plan, others, fault.id)));
        }
        (from, to)
    };
    let lasting = |id: FaultId| (vec![id], vec![(duration, Step::Heal(id))]);
    match &fault.action {
        Action::Crash { node, .. } => {
            let node = one(node);
            (vec![world.crash(node)], vec![(duration, Step::Restart(node))])
        }
        Action::Power { node, unsynced, .. } => {
            let node = one(node);
            (vec![world.power_loss(node, power_law(*unsynced))], vec![(duration, Step::Restart(node))])
        }
        Action::Wipe { node, .. } => {
            let node = one(node);
            let effects = vec![world.power_loss(node, PowerLaw::Lost), world.wipe(node)];
            (effects, vec![(duration, Step::Restart(node))])
        }
        Action::Pause { node, .. } => {
            let node = one(node);
            (vec![world.pause(node)], vec![(duration, Step::Resume(node))])
        }
        Action::Stop { node } => (vec![world.terminate(one(node))], Vec::new()),
        Action::Split { nodes, .. } => {
            let side: Vec<_> = nodes.iter().flat_map(all).collect();
            let others: Vec<_> = world.nodes().into_iter().filter(|n| !side.contains(n)).collect();
            lasting(world.net().partition(&side, &others))
        }
        Action::Isolate { node, .. } => {
            let node = one(node);
            let others: Vec<_> = world.nodes().into_iter().filter(|n| *n != node).collect();
            lasting(world.net().partition(&[node], &others))
        }
        Action::Cut { from, to, both, .. } => {
            let (from, to) = link(from, to);
            lasting(if *both { world.net().partition(&from, &to) } else { world.net().cut(&from, &to) })
        }
        Action::Hold { from, to, .. } => {
            let (from, to) = link(from, to);
            lasting(world.net().hold(&from, &to))
        }
        Action::Reset { a, b } => {
            let (a, b) = link(a, b);
            (vec![world.net().reset(&a, &b)], Vec::new())
        }
        Action::Straggle { from, to, per_million, up_to_ms, .. } => {
            let (from, to) = link(from, to);
            let law = LinkLaw { tail_ppm: *per_million, tail_max: ms(*up_to_ms), ..cluster.law };
            lasting(world.net().disturb(&from, &to, law))
        }
        Action::ConnectHang { from, to, .. } => {
            let (from, to) = link(from, to);
            let hang = world.net().hang_connects(&from, &to);
            // Peers keep their connections for ever: only a broken one makes them connect again.
            (vec![hang, world.net().reset(&from, &to)], vec![(duration, Step::Heal(hang))])
        }
        Action::Loss { from, to, per_million, .. } => {
            let (from, to) = link(from, to);
            lasting(world.net().disturb(&from, &to, link_law(plan, None, Some(*per_million))))
        }
        Action::Slow { from, to, latency_us, .. } => {
            let (from, to) = link(from, to);
            lasting(world.net().disturb(&from, &to, link_law(plan, Some(*latency_us), None)))
        }
        Action::FsyncError { node, .. } => (vec![world.disk(one(node)).fail_syncs(1)], Vec::new()),
        Action::DiskFull { node, .. } => lasting(world.disk(one(node)).full_now()),
        Action::DiskStall { node, .. } => (vec![world.disk(one(node)).stall(duration)], Vec::new()),
        Action::ClockOffset { node, ms } => (vec![world.clock(one(node)).set_offset(*ms)], Vec::new()),
        Action::ClockStep { node, by_ms } => {
            let by = ms(by_ms.unsigned_abs());
            (vec![world.clock(one(node)).step(by, *by_ms >= 0)], Vec::new())
        }
        Action::ClockDrift { node, ppm } => (vec![world.clock(one(node)).drift(i64::from(*ppm))], Vec::new()),
    }
}

/// The nodes meant: several if it is all followers.
fn resolve_all(cluster: &Cluster, plan: &Plan, target: Target, fault: u32) -> Vec<NodeId> {
    if let Target::Followers(at) = target
        && let Some((leader, replicas)) = state_of(cluster, plan, at)
    {
        return replicas.into_iter().filter(|r| *r != leader).filter_map(|r| cluster.broker(r)).collect();
    }
    vec![resolve(cluster, plan, target, fault)]
}

/// The leader and the replicas of a partition, as brokers know them.
fn state_of(cluster: &Cluster, plan: &Plan, at: Partition) -> Option<(i32, Vec<i32>)> {
    cluster.view().partition(plan.name_of(at.topic), at.partition)
}

/// One of these that is up, if any is, by a draw of the world.
fn any_of(cluster: &Cluster, plan: &Plan, all: Vec<NodeId>, fault: u32) -> NodeId {
    let up: Vec<_> = all.iter().copied().filter(|n| cluster.world.status(*n) == Status::Up).collect();
    let among = if up.is_empty() { &all } else { &up };
    let draw = seed::draw(plan.seeds.world, "role target", &[u64::from(fault)]);
    among[draw.range(0, among.len() as u64 - 1) as usize]
}

/// The node meant. A role is resolved among those that are up, by a draw of the world, and so is a leader that nobody
/// knows of, or that is down and has no successor yet: some broker.
fn resolve(cluster: &Cluster, plan: &Plan, target: Target, fault: u32) -> NodeId {
    let any_of = |all| any_of(cluster, plan, all, fault);
    let partition = |at: Partition| state_of(cluster, plan, at);
    let found = match target {
        Target::Node(name) => return cluster.node(name).expect("a valid plan names nodes that exist"),
        Target::Role(role) => return any_of(cluster.of_role(role)),
        Target::Leader(at) => partition(at).and_then(|(leader, _)| cluster.broker(leader)),
        Target::Follower(at) | Target::Followers(at) => partition(at).and_then(|(leader, replicas)| {
            let others = replicas.into_iter().filter(|r| *r != leader).filter_map(|r| cluster.broker(r));
            let others: Vec<_> = others.collect();
            (!others.is_empty()).then(|| any_of(others))
        }),
        Target::Controller => cluster.view().controller().and_then(|(_, leader)| cluster.broker(leader)),
    };
    let found = found.filter(|node| cluster.world.status(*node) == Status::Up);
    found.unwrap_or_else(|| any_of(cluster.of_role(Role::Broker)))
}

fn crash_point(point: &CrashPoint, target: world::Target, action: &Action) -> world::CrashPoint {
    world::CrashPoint {
        target,
        label: point.label.clone(),
        when: match point.when {
            When::Before => world::When::Before,
            When::After => world::When::After,
        },
        nth: u64::from(point.nth),
        partition: point.partition,
        then: match action {
            Action::Power { unsynced, .. } => world::Then::Power(power_law(*unsynced)),
            Action::Pause { .. } => world::Then::Pause,
            Action::Isolate { .. } => world::Then::Cut,
            _ => world::Then::Crash,
        },
        recover_after: Some(Duration::from_millis(action.duration_ms())),
    }
}

fn power_law(unsynced: Persistence) -> PowerLaw {
    match unsynced {
        Persistence::Kept => PowerLaw::Kept,
        Persistence::Lost => PowerLaw::Lost,
        Persistence::Prefix => PowerLaw::Prefix,
        Persistence::Subset => PowerLaw::Subset,
    }
}

/// The disk law of every node before any fault.
pub(super) fn set_disk_laws(cluster: &Cluster, plan: &Plan) {
    for node in cluster.world.nodes() {
        cluster.world.disk(node).set_law(disk_law(plan));
    }
}
