//! Members of groups come and go, stand still and die, while their coordinators move.
//!
//! One group copies the topic in transactions, with its offsets in them: a member that lost its partitions and does not
//! know it must not commit (KIP-447), so that each record is copied once. The other commits by itself or after each poll, and
//! reads everything at least once.

use super::{Entry, GROUP_PROPERTIES};
use crate::generate::{
    Families, FaultSpace, Menu, Mix, base, faults, mixed_producers, stream, strike, topic, transactions_partition_of,
    with_brokers,
};
use crate::plan::{
    Action, Client, ClientRole, Commit, CrashPoint, Family, GroupProtocol, Member, NodeName, Partition, Plan, Role,
    Stay, Target, TopicRef, Trigger, When,
};

pub const ENTRY: Entry = Entry {
    name: "rebalance_storm",
    story: "Two groups read what producers write, one of them copies it in transactions. \
            Members join, leave, pause for longer than their sessions and crash, and so do the coordinators of their groups. \
            Every record is copied once and read by somebody, and no committed offset is lost.",
    properties: GROUP_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

const COPIES: &str = "copies";
/// Joins after this are left alone: by then a group is often in a round that waits for somebody, and nothing comes of it.
const AT_JOINS_MS: u64 = 5_000;
/// Between two that come one after the other.
const PAIR_MS: (u64, u64) = (450, 900);

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    with_brokers(&mut plan, 3);
    let mut rng = stream(&plan, "shape", &[]);
    let partitions = rng.range(2, 5) as u32;
    mixed_producers(&mut plan, Mix { idempotent: 2, transactional: 1, records: 150, partitions, active_ms: 12_000 });
    share(&mut plan);
    rebalance(&mut plan);
    let space = FaultSpace { from_ms: 500, to_ms: 11_000 };
    let menu = Menu { net: (0, 2), crash_points: (0, 2), duplicates: (0, 2), ..Menu::default() };
    faults(&mut plan, space, menu);
    plan.budgets.safety_ms = 14_000;
    plan
}

/// Two groups that read topic `events`: one copies it to a topic of its own.
pub(super) fn share(plan: &mut Plan) {
    let mut rng = stream(plan, ENTRY.name, &[]);
    let copies = topic(plan, COPIES, rng.range(1, 3) as u32);
    plan.topics.push(copies);
    let transaction = |_: &mut seed::Rng| Commit::Transaction { to: COPIES.into() };
    members(plan, "copiers", transaction);
    let other = |rng: &mut seed::Rng| match rng.chance(1, 2) {
        true => Commit::Auto { every_ms: rng.range(200, 1_500) },
        false => Commit::Each,
    };
    members(plan, "readers", other);
}

/// Members and coordinators of groups that die, stand still or are not heard.
pub(super) fn rebalance(plan: &mut Plan) {
    // Less than a session, so that who missed an answer is still a member when it asks again.
    plan.knobs.client.request_timeout_ms = *stream(plan, "patience", &[]).choose(&[400, 600, 1_000]);
    let mut rng = stream(plan, ENTRY.name, &[Family::Process as u64]);
    for _ in 0..rng.range(3, 7) {
        let ms = rng.range(1_500, 12_000);
        let there: Vec<u32> = plan.clients.iter().filter(|c| is_there(c, ms)).map(|c| c.id).collect();
        let node = match rng.chance(1, 4) {
            true => Target::Leader(Partition { topic: TopicRef::Offsets, partition: 0 }),
            false => Target::Node(NodeName::new(Role::Client, *rng.choose(&there))),
        };
        let for_ms = rng.range(300, 6_000);
        let action = match rng.chance(1, 2) {
            true => Action::Pause { node, for_ms },
            false => Action::Crash { node, restart_after_ms: for_ms / 2 },
        };
        strike(plan, Family::Process, Trigger::At { ms }, action);
    }
    unheard(plan);
    at_steps(plan);
    at_joins(plan);
}

/// Members that die, stand still or are cut off at the steps of a round, or at a commit. Between JoinGroup and SyncGroup the
/// others wait for them; with SyncGroup's answer lost they own by an earlier generation; a commit that is stored is the last
/// that they do.
fn at_steps(plan: &mut Plan) {
    let mut rng = stream(plan, "steps", &[]);
    for _ in 0..rng.range(2, 6) {
        let all: Vec<(u32, &Member)> = plan.clients.iter().filter_map(|c| Some((c.id, member(c)?))).collect();
        let &(id, member) = rng.choose(&all);
        let mut steps = match member.protocol {
            GroupProtocol::Consumer => vec![("heartbeat", 12)],
            _ => vec![("join", 1), ("sync", 1), ("sync", 1)],
        };
        match member.commit {
            Commit::Auto { .. } => steps.extend([("commit", 2), ("commit", 2)]),
            Commit::Each => steps.push(("commit", 4)),
            Commit::Transaction { .. } => {}
        }
        let &(label, most) = rng.choose(&steps);
        let point = CrashPoint {
            node: Target::Node(NodeName::new(Role::Client, id)),
            label: label.into(),
            when: if rng.chance(1, 2) { When::Before } else { When::After },
            partition: None,
            nth: rng.range(1, most) as u32,
            after_ms: rng.range(500, 7_000),
        };
        let node = point.node;
        let action = match rng.range(0, 4) {
            0 => Action::Pause { node, for_ms: rng.range(500, 5_000) },
            1 | 2 => Action::Isolate { node, for_ms: rng.range(300, 2_500) },
            _ => Action::Crash { node, restart_after_ms: rng.range(300, 6_000) },
        };
        strike(plan, Family::CrashPoints, Trigger::CrashPoint(point), action);
    }
}

/// Somebody joins a group of the classic protocol.
struct Join {
    ms: u64,
    /// Who of the group is there, but for the one that came first: it leads, and all wait for its word.
    others: Vec<u32>,
    cooperative: bool,
    copies: bool,
}

/// The joins of those that come and go. Of two that come one soon after the other, the first.
fn joins(plan: &Plan) -> Vec<Join> {
    let members: Vec<(u32, &Member)> = plan.clients.iter().filter_map(|c| Some((c.id, member(c)?))).collect();
    let mut joins = Vec::new();
    for (newcomer, m) in &members {
        if m.protocol == GroupProtocol::Consumer || m.stays.iter().any(|s| s.until_ms.is_none()) {
            continue;
        }
        let others: Vec<_> =
            members.iter().filter(|(id, other)| id != newcomer && other.group == m.group).copied().collect();
        for ms in m.stays.iter().map(|s| s.from_ms).filter(|ms| *ms < AT_JOINS_MS) {
            let since = |other: &Member| other.stays.iter().map(|s| s.from_ms).filter(|from_ms| *from_ms <= ms).max();
            let mut there: Vec<(Option<u64>, u32)> =
                others.iter().filter(|(_, o)| o.is_there(ms)).map(|(id, o)| (since(o), *id)).collect();
            there.sort_unstable();
            let is_second = there.last().is_some_and(|(since, _)| since.is_some_and(|since| since + PAIR_MS.1 >= ms));
            let cooperative = m.protocol == GroupProtocol::CooperativeSticky;
            if there.is_empty() || (cooperative && is_second) {
                continue;
            }
            let others = there.iter().skip(usize::from(there.len() > 1)).map(|(_, id)| *id).collect();
            joins.push(Join { ms, others, cooperative, copies: matches!(m.commit, Commit::Transaction { .. }) });
        }
    }
    joins
}

/// A member that was there before misses what a newcomer brings about. It is cut off before it asks for its part, so that it
/// is in the next round with what it had by the generation before (KAFKA-13419), and stands still before its part of that
/// round: the others have theirs first. Or what it commits comes late, and finds the next generation (KAFKA-9823).
fn at_joins(plan: &mut Plan) {
    let mut rng = stream(plan, "joins", &[]);
    for Join { ms, others, cooperative, copies } in joins(plan) {
        let member = *rng.choose(&others);
        let node = Target::Node(NodeName::new(Role::Client, member));
        let request_ms = plan.knobs.client.request_timeout_ms;
        if copies && rng.chance(1, 4) {
            while_it_copies(plan, &mut rng, member, ms);
        } else if rng.chance(if cooperative { 7 } else { 2 }, 8) {
            let sync = |nth, action| {
                let (label, when) = ("sync".to_owned(), When::Before);
                let point = CrashPoint { node, label, when, partition: None, nth, after_ms: ms.saturating_sub(50) };
                (Trigger::CrashPoint(point), action)
            };
            let (trigger, action) = sync(1, Action::Isolate { node, for_ms: request_ms + rng.range(200, 1_000) });
            strike(plan, Family::CrashPoints, trigger, action);
            let (trigger, action) = sync(2, Action::Pause { node, for_ms: rng.range(300, 1_400) });
            strike(plan, Family::CrashPoints, trigger, action);
        } else {
            let action = Action::Straggle {
                from: node,
                to: Target::Leader(Partition { topic: TopicRef::Offsets, partition: 0 }),
                per_million: 900_000,
                up_to_ms: request_ms + rng.range(1_500, 4_000),
                for_ms: rng.range(200, 600),
            };
            strike(plan, Family::Duplicates, Trigger::At { ms: ms.saturating_sub(rng.range(0, 300)) }, action);
        }
    }
}

/// A member does not hear its coordinator for as long as its session lasts: it takes itself for out, and comes again
/// while the coordinator, which heard it a little longer, still has it. What it had goes to the newcomer, and the offsets of
/// the transaction that it was in come later, in the name of a generation that is over (KIP-447).
fn while_it_copies(plan: &mut Plan, rng: &mut seed::Rng, member: u32, joins_ms: u64) {
    let session_ms = plan.knobs.broker.group_session_timeout_ms;
    let ms = joins_ms.saturating_sub(rng.range(0, session_ms));
    let deaf = Action::Cut {
        from: Target::Leader(Partition { topic: TopicRef::Offsets, partition: 0 }),
        to: Target::Node(NodeName::new(Role::Client, member)),
        both: false,
        for_ms: session_ms + rng.range(0, 300) - 100,
    };
    strike(plan, Family::Net, Trigger::At { ms }, deaf);
    // A member's transactional id is of its client's number.
    let stuck = Action::Cut {
        from: Target::Node(NodeName::new(Role::Client, member)),
        to: Target::Leader(transactions_partition_of(plan, &format!("member-{member}"))),
        both: true,
        for_ms: session_ms + rng.range(800, 2_500),
    };
    strike(plan, Family::Net, Trigger::At { ms }, stuck);
}

fn member(client: &Client) -> Option<&Member> {
    match &client.role {
        ClientRole::Member(m) => Some(m),
        ClientRole::Producer(_) | ClientRole::Reader(_) => None,
    }
}

/// Members that the coordinator hears, and who do not hear it: they miss the answer that tells a round's result, or that of
/// a commit. Others whom it hears late.
fn unheard(plan: &mut Plan) {
    let coordinator = Target::Leader(Partition { topic: TopicRef::Offsets, partition: 0 });
    for family in [Family::Net, Family::Duplicates] {
        let mut rng = stream(plan, "unheard", &[family as u64]);
        for _ in 0..rng.range(1, 4) {
            let ms = rng.range(1_000, 12_000);
            let there: Vec<u32> = plan.clients.iter().filter(|c| is_there(c, ms)).map(|c| c.id).collect();
            let member = Target::Node(NodeName::new(Role::Client, *rng.choose(&there)));
            let action = match family {
                Family::Net => {
                    Action::Cut { from: coordinator, to: member, both: false, for_ms: rng.range(300, 2_500) }
                }
                _ => Action::Straggle {
                    from: member,
                    to: coordinator,
                    per_million: rng.range(300_000, 700_000) as u32,
                    up_to_ms: plan.knobs.client.request_timeout_ms + rng.range(100, 2_000),
                    for_ms: rng.range(500, 2_500),
                },
            };
            strike(plan, family, Trigger::At { ms }, action);
        }
    }
}

/// A member at this time.
fn is_there(client: &Client, ms: u64) -> bool {
    member(client).is_some_and(|m| m.is_there(ms))
}

/// Two or three members from the start on, and one or two that come and go. The last of the first stays to the end.
fn members(plan: &mut Plan, group: &str, commit: impl Fn(&mut seed::Rng) -> Commit) {
    let mut rng = stream(plan, group, &[]);
    let protocol = *rng.choose(&[
        GroupProtocol::Range,
        GroupProtocol::RoundRobin,
        GroupProtocol::CooperativeSticky,
        GroupProtocol::CooperativeSticky,
        GroupProtocol::CooperativeSticky,
        GroupProtocol::CooperativeSticky,
        GroupProtocol::Consumer,
        GroupProtocol::Consumer,
    ]);
    let commit = commit(&mut rng);
    let static_members = rng.chance(1, 4);
    let firm = rng.range(2, 3);
    // Two after one another bring two rounds about, and a cooperative member can miss one and be of the next.
    let cooperative = protocol == GroupProtocol::CooperativeSticky;
    let pair_ms = cooperative.then(|| rng.range(PAIR_MS.0, PAIR_MS.1));
    let passing = if cooperative { 2 } else { rng.range(1, 2) };
    let mut first: Vec<Stay> = Vec::new();
    for n in 0..firm + passing {
        let stays = if n < firm {
            vec![Stay { from_ms: rng.range(0, 1_500), until_ms: None }]
        } else if let Some(pair_ms) = pair_ms.filter(|_| !first.is_empty()) {
            let later = |s: &Stay| Stay { from_ms: s.from_ms + pair_ms, until_ms: s.until_ms.map(|ms| ms + pair_ms) };
            first.iter().map(later).collect()
        } else {
            let mut stays = Vec::new();
            // Not before the first have shared out what there is, if it is to be missed.
            let mut from_ms = if cooperative { rng.range(1_800, 3_200) } else { rng.range(500, 3_000) };
            while from_ms < 12_000 {
                let until_ms = from_ms + rng.range(400, 4_000);
                stays.push(Stay { from_ms, until_ms: Some(until_ms) });
                from_ms = until_ms + rng.range(200, 3_000);
            }
            first.clone_from(&stays);
            stays
        };
        let id = plan.clients.len() as u32;
        let member = Member {
            group: group.into(),
            topic: "events".into(),
            protocol,
            instance_id: static_members.then(|| format!("{group}-{n}")),
            commit: commit.clone(),
            stays,
        };
        plan.clients.push(Client { id, role: ClientRole::Member(member) });
    }
}
