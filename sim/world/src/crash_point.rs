//! Crash points: places in a node's code at which the world kills, pauses or cuts it. Driver loops name them through
//! `env::node::crash_point`, and every disk and network call of `env` is one, before and after.

use std::rc::Rc;
use std::time::Duration;

use crate::agenda::Event;
use crate::kernel::{self, Ctx, Kernel};
use crate::time::nanos;
use crate::{FaultId, PowerLaw, net};

/// Whom a crash point is meant for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A node by name.
    Node(String),
    /// Any node of the role; the first that gets there is taken, and named in the effect.
    Role(String),
}

/// Before or after the action.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum When {
    Before,
    After,
}

/// What happens at the point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    Crash,
    Power(PowerLaw),
    Pause,
    /// The node is cut off from every other one, both ways.
    Cut,
}

/// One crash point, armed by [`crate::World::arm`]. It fires once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrashPoint {
    pub target: Target,
    /// The action's name, or `disk.write`, `disk.sync`, `net.connect`, `net.write`, …
    pub label: String,
    pub when: When,
    /// Counts from 1, per node, since the node was first started.
    pub nth: u64,
    /// Only actions on this partition, if given.
    pub partition: Option<i32>,
    pub then: Then,
    /// Restart, resume or heal after this time; never, if absent.
    pub recover_after: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Points {
    armed: Vec<Armed>,
}

#[derive(Debug)]
struct Armed {
    id: FaultId,
    point: CrashPoint,
    /// Times reached, by node.
    reached: std::collections::BTreeMap<u32, u64>,
}

pub(crate) struct Reached<'a> {
    pub(crate) ctx: Ctx,
    pub(crate) name: &'a str,
    pub(crate) roles: [&'a str; 2],
    pub(crate) label: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) when: When,
}

impl Points {
    pub(crate) fn arm(&mut self, id: FaultId, point: CrashPoint) {
        assert!(point.nth > 0, "nth counts from 1");
        self.armed.push(Armed { id, point, reached: Default::default() });
    }

    pub(crate) fn disarm(&mut self, id: FaultId) {
        self.armed.retain(|a| a.id != id);
    }

    pub(crate) fn any(&self) -> bool {
        !self.armed.is_empty()
    }

    /// The first armed point that this call completes. All that match count it.
    pub(crate) fn reach(&mut self, at: &Reached<'_>) -> Option<(FaultId, CrashPoint)> {
        let mut hit = None;
        for (n, armed) in self.armed.iter_mut().enumerate() {
            let p = &armed.point;
            let meant = match &p.target {
                Target::Node(name) => name == at.name,
                Target::Role(role) => at.roles.contains(&role.as_str()),
            };
            let same_partition = p.partition.is_none() || p.partition == at.partition;
            if meant && same_partition && p.label == at.label && p.when == at.when {
                let reached = armed.reached.entry(at.ctx.node).or_default();
                *reached += 1;
                if *reached == p.nth && hit.is_none() {
                    hit = Some(n);
                }
            }
        }
        let armed = self.armed.remove(hit?);
        Some((armed.id, armed.point))
    }
}

impl Then {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Then::Crash => "crash-point-crash",
            Then::Power(_) => "crash-point-power-loss",
            Then::Pause => "crash-point-pause",
            Then::Cut => "crash-point-cut",
        }
    }
}

impl Target {
    pub(crate) fn describe(&self) -> String {
        match self {
            Target::Node(name) => name.clone(),
            Target::Role(role) => format!("any {role}"),
        }
    }
}

impl Kernel {
    /// Reports that the current node is at a point. False if it is dead, by this or before.
    pub(crate) fn reach(self: &Rc<Self>, label: &str, when: When) -> bool {
        self.reach_as("", label, None, when) != Outcome::Dead
    }

    fn reach_as(self: &Rc<Self>, role: &str, label: &str, partition: Option<i32>, when: When) -> Outcome {
        let ctx = kernel::ctx();
        if !self.alive(ctx) {
            return Outcome::Dead;
        }
        if !self.armed.get() {
            return Outcome::Alive;
        }
        let hit = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let node = &state.nodes[ctx.node as usize];
            let at = Reached { ctx, name: &node.name, roles: [&node.role, role], label, partition, when };
            let hit = state.points.reach(&at);
            self.armed.set(state.points.any());
            if let Some((id, _)) = &hit {
                state.effects.0[id.index()].subject = format!("{} at {label}", node.name);
                state.effects.meet(*id, "reached", 1, self.now());
                state.trace.note(self.now(), ctx, "crash-point", u64::from(id.0), 0);
                state.story.life(self.now(), ctx, "crash-point");
            }
            hit
        };
        let Some((id, point)) = hit else { return Outcome::Alive };
        if let Some(after) = point.recover_after {
            let at = self.now().saturating_add(nanos(after));
            self.state.borrow_mut().agenda.insert(self, at, Event::Recover(id));
        }
        match point.then {
            Then::Crash => {
                self.kill(ctx.node, None, id);
            }
            Then::Power(law) => {
                self.kill(ctx.node, Some(law), id);
            }
            Then::Pause => {
                self.pause(ctx.node, id);
                return Outcome::Paused;
            }
            Then::Cut => {
                let nodes = u32::try_from(self.state.borrow().nodes.len()).unwrap_or(u32::MAX);
                let others = (1..nodes).filter(|&n| n != ctx.node);
                let pairs = others.flat_map(|n| [(n, ctx.node), (ctx.node, n)]).collect();
                net::block(self, &pairs, id, net::Block::Cut);
            }
        }
        if self.alive(ctx) { Outcome::Alive } else { Outcome::Dead }
    }

    /// A point in asynchronous code: does not return to a dead node, nor to a paused one before it runs again.
    pub(crate) async fn crash_point(self: &Rc<Self>, label: &str, when: When) {
        self.crash_point_as("", label, None, when).await;
    }

    pub(crate) async fn crash_point_as(self: &Rc<Self>, role: &str, label: &str, partition: Option<i32>, when: When) {
        match self.reach_as(role, label, partition, when) {
            Outcome::Alive => {}
            Outcome::Dead => std::future::pending().await,
            Outcome::Paused => tokio::task::yield_now().await,
        }
    }

    /// Returns at once to the living and never to the dead.
    pub(crate) async fn stay_dead(&self, ctx: Ctx) {
        if !self.alive(ctx) {
            std::future::pending().await
        }
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Alive,
    Dead,
    Paused,
}
