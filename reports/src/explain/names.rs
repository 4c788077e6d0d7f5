//! Node names by their number in the world.

use history::Observer;
use scenarios::Plan;

/// Of one plan.
#[derive(Clone, Debug)]
pub struct Names(Vec<String>);

impl Names {
    pub fn of(plan: &Plan) -> Self {
        Self(plan.nodes().iter().map(ToString::to_string).collect())
    }

    /// Numbers count from 1 in order of creation; 0 is the world itself.
    pub fn node(&self, number: u32) -> String {
        let name = number.checked_sub(1).and_then(|n| self.0.get(n as usize));
        name.cloned().unwrap_or_else(|| format!("node {number}"))
    }

    pub fn observer(&self, observer: &Observer) -> String {
        match observer {
            Observer::Node { node, .. } => self.node(*node),
            Observer::Client { client } => format!("client-{client}"),
        }
    }

    pub fn all(&self) -> &[String] {
        &self.0
    }
}
