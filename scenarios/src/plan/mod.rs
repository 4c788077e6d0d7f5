//! A scenario as data: everything a run depends on, in one serialisable value.
//!
//! Guarantees: nothing is defaulted at replay (no `serde(default)`, unknown fields are errors); [`Plan::validate`]
//! accepts every generated plan and refuses every plan the runner could not carry out. The three seeds are kept apart:
//! `workload` made the records and faults below and is kept as a note of origin, `world` decides draws of network, disk and
//! clock, `schedule` the order in which ready tasks run. Dropping an entry of `faults` therefore leaves all else as it
//! was. A plan is valid for ever; what it does is bit-exact per build.
//!
//! | part | says |
//! |--|--|
//! | [`Topology`] | which nodes exist |
//! | [`Knobs`] | every setting of broker, client, processor and world |
//! | [`Topic`], [`Client`] | the workload, record by record |
//! | [`Job`] | the streaming job, if the scenario has a processor |
//! | [`Fault`] | what goes wrong, when or where, and to whom |
//! | [`Budgets`] | how long each phase may last |

mod budget;
mod fault;
mod knobs;
mod topology;
mod upgrade;
mod validate;
mod workload;

pub use budget::Budgets;
pub use fault::{Action, CrashPoint, Family, Fault, Partition, Persistence, Target, TopicRef, Trigger, When};
pub use knobs::{BrokerKnobs, ClientKnobs, Compression, Flush, Knobs, LinkLaw, ProcessorKnobs, WorldKnobs};
pub use topology::{NodeName, Role, Topology};
pub use validate::PlanError;
pub use workload::{
    Acks, Batch, Client, ClientRole, Commit, End, GroupProtocol, Hex, Isolation, Job, Member, Payload, Producer,
    Reader, Record, Stay, Topic, Transaction, Twist,
};

use serde::{Deserialize, Serialize};

/// Version of the stored form. Earlier ones are read as what they meant (`upgrade`); a later one is refused, never guessed
/// at.
pub const VERSION: u32 = 2;

/// One run, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// Name in the catalogue: it says which properties judge the run.
    pub scenario: String,
    /// The seed the plan was generated from.
    pub seed: u64,
    pub seeds: Seeds,
    pub schedule: Schedule,
    pub topology: Topology,
    pub knobs: Knobs,
    pub topics: Vec<Topic>,
    pub job: Option<Job>,
    pub clients: Vec<Client>,
    /// Fault families this seed switched off (swarm testing: a family that is always on hides bugs that need its absence).
    pub families_off: Vec<Family>,
    pub faults: Vec<Fault>,
    /// What the generator did to event time on purpose; the records already carry it.
    pub twists: Vec<Twist>,
    pub budgets: Budgets,
}

/// The three sources of chance, kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    pub workload: u64,
    pub world: u64,
    pub schedule: u64,
}

/// How the next ready task is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Every ready task is equally likely.
    Uniform,
    /// Probabilistic concurrency testing with `depth` priority changes. Reserved: the runner refuses it for now.
    Pct { depth: u32 },
}

impl Plan {
    /// The topic's name. A plan that [`Plan::validate`] passed has the topics that its faults name.
    pub fn name_of(&self, topic: TopicRef) -> &str {
        match topic {
            TopicRef::Workload(index) => &self.topics[index as usize].name,
            TopicRef::Offsets => "__consumer_offsets",
            TopicRef::Transactions => "__transaction_state",
        }
    }

    /// Reads a stored plan and validates it.
    ///
    /// # Errors
    /// Text that is not a plan of [`VERSION`] or an earlier one, or a plan that [`Plan::validate`] refuses.
    pub fn from_json(text: &str) -> Result<Plan, PlanError> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| PlanError::Json(e.to_string()))?;
        let plan: Plan = match value.get("version").and_then(serde_json::Value::as_u64) {
            // Read again from the text, so that an error can say its line.
            Some(v) if v == u64::from(VERSION) => serde_json::from_str(text),
            Some(1) => serde_json::from_value(upgrade::from_1(value)),
            Some(v) => return Err(PlanError::Version { found: v, expected: VERSION }),
            None => return Err(PlanError::Json("no field `version`: this is not a plan".into())),
        }
        .map_err(|e| PlanError::Json(e.to_string()))?;
        plan.validate()?;
        Ok(plan)
    }

    /// The stored form: JSON with a field a line.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan has only string keys and integers")
    }

    /// All workload records with their client, in plan order.
    pub fn records(&self) -> impl Iterator<Item = (u32, &Record)> {
        self.clients.iter().flat_map(|client| {
            let batches = match &client.role {
                ClientRole::Producer(p) => p.batches.as_slice(),
                ClientRole::Reader(_) | ClientRole::Member(_) => &[],
            };
            batches.iter().flat_map(move |b| b.records.iter().map(move |r| (client.id, r)))
        })
    }

    /// Names of all nodes, in the order they are created.
    pub fn nodes(&self) -> Vec<NodeName> {
        self.topology.nodes(&self.clients)
    }
}
