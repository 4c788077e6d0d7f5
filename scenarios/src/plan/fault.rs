//! What goes wrong: when or where, and to whom.
//!
//! A fault is one entry with a number of its own. The world's draws depend on link, connection and message, never on the
//! list of faults, so an entry can be dropped and all else stays as it was. A fault that never had an effect is
//! reported as "did not bite".

use serde::{Deserialize, Serialize};

use super::{NodeName, Role};

/// Families a seed may switch off as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Net,
    Disk,
    Clock,
    Process,
    CrashPoints,
    EventTime,
    Duplicates,
}

impl Family {
    pub const ALL: [Family; 7] = [
        Family::Net,
        Family::Disk,
        Family::Clock,
        Family::Process,
        Family::CrashPoints,
        Family::EventTime,
        Family::Duplicates,
    ];

    /// The spelling of the command line and of reports.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Net => "net",
            Family::Disk => "disk",
            Family::Clock => "clock",
            Family::Process => "process",
            Family::CrashPoints => "crash_points",
            Family::EventTime => "event_time",
            Family::Duplicates => "duplicates",
        }
    }

    /// One line for `list faults`.
    pub const fn story(self) -> &'static str {
        match self {
            Family::Net => "latency, loss, cuts one-way and both ways, splits, holds, resets, connects that hang",
            Family::Disk => {
                "power loss (unsynced data kept, lost or torn), fsync errors, a full disk, stalls, a lost disk"
            }
            Family::Clock => "offset, drift and steps of one node's clocks",
            Family::Process => "crash, stop, restart and pause of a node at a given time",
            Family::CrashPoints => "crash, power loss, pause or cut at the nth time a node reaches a named action",
            Family::EventTime => "idle splits, late records, bursts, window-edge timestamps, poison records",
            Family::Duplicates => "lost replies with retries; bytes of an abandoned connection that arrive late",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Unique in the plan; reports and shrinking name a fault by it.
    pub id: u32,
    pub family: Family,
    pub trigger: Trigger,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Trigger {
    /// Milliseconds since the clients started.
    At {
        ms: u64,
    },
    CrashPoint(CrashPoint),
}

/// The nth time that a node which matches executes an action, counted for each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrashPoint {
    pub node: Target,
    /// Name of the action: `append`, `disk.sync`, `net.write`, …
    pub label: String,
    pub when: When,
    pub partition: Option<i32>,
    /// From 1.
    pub nth: u32,
    /// Counting starts here, in milliseconds since the clients started, so that set-up does not use it up.
    pub after_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    Before,
    After,
}

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    Node(NodeName),
    /// Any node of the role, resolved at run time (and the resolution recorded): the one that reached the crash point, or
    /// by a draw of the world among those alive.
    Role(Role),
    /// The broker that leads the partition when the fault strikes, as the brokers themselves know it.
    Leader(Partition),
    /// A replica of the partition that does not lead it, by a draw of the world.
    Follower(Partition),
    /// All its replicas that do not lead it: an end of a link, or nodes of a split.
    Followers(Partition),
    /// The active controller: the leader of the metadata quorum.
    Controller,
}

/// A partition, by what its topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    pub topic: TopicRef,
    pub partition: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TopicRef {
    /// Index into the plan's topics.
    Workload(u32),
    /// `__consumer_offsets`: its leaders coordinate groups.
    Offsets,
    /// `__transaction_state`: its leaders coordinate transactions.
    Transactions,
}

/// What a power loss leaves of data that was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    Kept,
    Lost,
    /// A prefix of the writes, the last one torn at a sector.
    Prefix,
    /// Any subset of the writes, each perhaps torn at a sector.
    Subset,
}

/// What is done. Node actions apply to `node`, or at a crash point to the node that reached it when `node` is a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The process dies, its page cache survives; it is started again after a while.
    Crash { node: Target, restart_after_ms: u64 },
    /// The machine loses power.
    Power { node: Target, unsynced: Persistence, restart_after_ms: u64 },
    /// The machine is lost with its disk; another with an empty one takes its place. Nothing acknowledged is lost if it is on
    /// two disks, so a plan loses one disk at most.
    Wipe { node: Target, restart_after_ms: u64 },
    /// The node stands still, then goes on.
    Pause { node: Target, for_ms: u64 },
    /// The process is asked to stop (SIGTERM): a broker lets its leaderships move away first. It is started again.
    Stop { node: Target },
    /// The node is cut off from all others.
    Isolate { node: Target, for_ms: u64 },
    /// The network falls in two: these nodes on one side, all others on the other.
    Split { nodes: Vec<Target>, for_ms: u64 },
    /// Bytes from `from` to `to` wait (and time out) until healed; with `both`, the other direction too.
    Cut { from: Target, to: Target, both: bool, for_ms: u64 },
    /// Bytes are held back, then all arrive at once.
    Hold { from: Target, to: Target, for_ms: u64 },
    /// Every connection between the two is reset.
    Reset { a: Target, b: Target },
    /// Some segments from `from` to `to` take up to `up_to_ms`, longer than a request may take: the client gives the
    /// connection up and repeats on another one, and the bytes of the first arrive after all.
    Straggle { from: Target, to: Target, per_million: u32, up_to_ms: u64, for_ms: u64 },
    /// Connections between the two are reset, and new ones from `from` hang.
    ConnectHang { from: Target, to: Target, for_ms: u64 },
    /// Loss as retransmission delay.
    Loss { from: Target, to: Target, per_million: u32, for_ms: u64 },
    /// Another latency law for a while.
    Slow { from: Target, to: Target, latency_us: (u64, u64), for_ms: u64 },
    /// The next sync fails and drops the dirty pages.
    FsyncError { node: Target, restart_after_ms: u64 },
    /// No space left for new bytes, for a while; a node that stops for it is started again afterwards.
    DiskFull { node: Target, for_ms: u64 },
    /// No disk operation returns for a while.
    DiskStall { node: Target, for_ms: u64 },
    /// The wall clock is this far off from now on.
    ClockOffset { node: Target, ms: i64 },
    /// The wall clock jumps.
    ClockStep { node: Target, by_ms: i64 },
    /// The node's clocks run fast or slow until healed.
    ClockDrift { node: Target, ppm: i32 },
}

impl Action {
    /// Name for statistics and reports.
    pub const fn kind(&self) -> &'static str {
        match self {
            Action::Crash { .. } => "crash",
            Action::Power { .. } => "power",
            Action::Wipe { .. } => "wipe",
            Action::Pause { .. } => "pause",
            Action::Stop { .. } => "stop",
            Action::Isolate { .. } => "isolate",
            Action::Split { .. } => "split",
            Action::Cut { both: false, .. } => "cut_one_way",
            Action::Cut { both: true, .. } => "cut",
            Action::Hold { .. } => "hold",
            Action::Reset { .. } => "reset",
            Action::Straggle { .. } => "straggle",
            Action::ConnectHang { .. } => "connect_hang",
            Action::Loss { .. } => "loss",
            Action::Slow { .. } => "slow",
            Action::FsyncError { .. } => "fsync_error",
            Action::DiskFull { .. } => "disk_full",
            Action::DiskStall { .. } => "disk_stall",
            Action::ClockOffset { .. } => "clock_offset",
            Action::ClockStep { .. } => "clock_step",
            Action::ClockDrift { .. } => "clock_drift",
        }
    }

    /// Whether the world can do it at a crash point, to the node that reached it.
    pub const fn fits_crash_point(&self) -> bool {
        matches!(self, Action::Crash { .. } | Action::Power { .. } | Action::Pause { .. } | Action::Isolate { .. })
    }

    /// All targets named.
    pub fn targets(&self) -> Vec<Target> {
        self.clone().targets_mut().into_iter().map(|target| *target).collect()
    }

    /// All targets named, to be replaced.
    pub fn targets_mut(&mut self) -> Vec<&mut Target> {
        match self {
            Action::Crash { node, .. }
            | Action::Power { node, .. }
            | Action::Wipe { node, .. }
            | Action::Pause { node, .. }
            | Action::Stop { node }
            | Action::Isolate { node, .. }
            | Action::FsyncError { node, .. }
            | Action::DiskFull { node, .. }
            | Action::DiskStall { node, .. }
            | Action::ClockOffset { node, .. }
            | Action::ClockStep { node, .. }
            | Action::ClockDrift { node, .. } => vec![node],
            Action::Cut { from, to, .. }
            | Action::Hold { from, to, .. }
            | Action::Straggle { from, to, .. }
            | Action::ConnectHang { from, to, .. }
            | Action::Loss { from, to, .. }
            | Action::Slow { from, to, .. } => vec![from, to],
            Action::Split { nodes, .. } => nodes.iter_mut().collect(),
            Action::Reset { a, b } => vec![a, b],
        }
    }

    /// Whether it is done to one node, rather than between nodes.
    pub const fn is_of_one_node(&self) -> bool {
        matches!(
            self,
            Action::Crash { .. }
                | Action::Power { .. }
                | Action::Wipe { .. }
                | Action::Pause { .. }
                | Action::Stop { .. }
                | Action::Isolate { .. }
                | Action::FsyncError { .. }
                | Action::DiskFull { .. }
                | Action::DiskStall { .. }
                | Action::ClockOffset { .. }
                | Action::ClockStep { .. }
                | Action::ClockDrift { .. }
        )
    }

    /// How long it lasts by itself, in milliseconds; 0 for an instant.
    pub const fn duration_ms(&self) -> u64 {
        match *self {
            Action::Crash { restart_after_ms, .. }
            | Action::Power { restart_after_ms, .. }
            | Action::Wipe { restart_after_ms, .. }
            | Action::FsyncError { restart_after_ms, .. } => restart_after_ms,
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
            | Action::DiskStall { for_ms, .. } => for_ms,
            Action::Reset { .. }
            | Action::Stop { .. }
            | Action::ClockOffset { .. }
            | Action::ClockStep { .. }
            | Action::ClockDrift { .. } => 0,
        }
    }
}
