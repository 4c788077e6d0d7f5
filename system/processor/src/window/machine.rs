//! The window machine: one operator task's state, judged against the W of its combining point.
//!
//! Guarantees: a record is judged once, at the W of the moment it is handled; windows fire on time in the order
//! (closing point, key group, key); state goes at W >= c + L, after any firing at the same W. It leaves to the driver
//! the alignment of barriers and the writing of rows.
//!
//! ```text
//!             T > W: on time       T <= W, c + L > W: behind         c + L <= W: late
//!             accepted             accepted; fires at once if c <= W     side output
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;

use super::{
    Accumulating, Apart, Assigner, ClosingPoint, Kind, LastMillisecond, Merge, Placement, Row, Trigger, Tumbling,
    Window,
};
use crate::codec::CodecError;
use crate::decision::{Decision, InputId, Op, OpenInput};
use crate::job;
use crate::keys;
use crate::record::Record;
use crate::state::{self, KeyGroup, Snapshot, WindowState};
use crate::watermark::{Change, CombiningPoint, Input, Watermark};

/// The kind of window, complete.
#[derive(Clone, Debug)]
pub struct Operator {
    pub assigner: Rc<dyn Assigner>,
    pub closing: Rc<dyn ClosingPoint>,
    pub trigger: Rc<dyn Trigger>,
    pub merge: Rc<dyn Merge>,
    pub allowed_lateness_ms: i64,
    pub key_groups: u32,
}

impl Operator {
    pub fn new(window: &job::WindowConfig, key_groups: u32) -> Self {
        let job::Assigner::Tumbling { size_ms, offset_ms } = window.assigner;
        let job::Accumulation::Accumulating = window.accumulation;
        Self {
            assigner: Rc::new(Tumbling { size_ms, offset_ms }),
            closing: Rc::new(LastMillisecond),
            trigger: Rc::new(Accumulating),
            merge: Rc::new(Apart),
            allowed_lateness_ms: window.allowed_lateness_ms,
            key_groups,
        }
    }

    /// The W at which a window closing at `c` is late for good. MAX stays MAX.
    fn deadline(&self, c: Watermark) -> Watermark {
        Watermark::from_ms(c.as_ms().saturating_add(self.allowed_lateness_ms))
    }
}

/// What the driver has to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Decide(Decision),
    Emit(Row),
    Late(Record),
}

/// A window's place in the order of firing and of purging.
type Timer = (Watermark, u32, Bytes, Window);

#[derive(Debug)]
pub struct WindowMachine {
    operator: Operator,
    point: CombiningPoint<String>,
    /// W of each of the task's key groups as restored: never judged below it (rule 7).
    floors: BTreeMap<u32, Watermark>,
    groups: BTreeMap<u32, KeyGroup>,
    fire: BTreeSet<Timer>,
    purge: BTreeSet<Timer>,
    judged: Option<(i32, u32, i64, i64)>,
    actions: Vec<Action>,
}

impl WindowMachine {
    /// A task that starts from nothing.
    pub fn new(operator: Operator, channels: &[String], key_groups: &[u32]) -> Self {
        let point = CombiningPoint::new(channels.iter().map(|c| (c.clone(), Input::NEW)), Watermark::MIN);
        Self {
            operator,
            point,
            floors: key_groups.iter().map(|kg| (*kg, Watermark::MIN)).collect(),
            groups: BTreeMap::new(),
            fire: BTreeSet::new(),
            purge: BTreeSet::new(),
            judged: None,
            actions: Vec::new(),
        }
    }

    /// A task that goes on from what its key groups held at a checkpoint.
    pub fn restore(
        operator: Operator,
        channels: &[String],
        key_groups: &[u32],
        stored: &BTreeMap<u32, Bytes>,
    ) -> Result<Self, CodecError> {
        let malformed = |why: String| CodecError::Malformed { what: "checkpoint", why };
        let mut machine = Self::new(operator, channels, key_groups);
        let mut inputs: Option<Vec<(String, Input)>> = None;
        let mut watermark = Watermark::MAX;
        for kg in key_groups {
            let bytes = stored.get(kg).ok_or_else(|| malformed(format!("no state of key group {kg}")))?;
            let snapshot = Snapshot::decode(bytes.clone())?;
            match &inputs {
                None => inputs = Some(snapshot.channels),
                Some(first) if *first == snapshot.channels => {}
                Some(_) => return Err(malformed(format!("key group {kg} comes from another task"))),
            }
            watermark = watermark.min(snapshot.watermark);
            machine.floors.insert(*kg, snapshot.watermark);
            machine.set_timers(*kg, snapshot.watermark, &snapshot.group);
            machine.groups.insert(*kg, snapshot.group);
        }
        let inputs = inputs.ok_or_else(|| malformed("no key group".into()))?;
        if !inputs.iter().map(|(name, _)| name).eq(channels.iter()) {
            return Err(malformed(format!("channels {inputs:?}, now {channels:?}")));
        }
        machine.point = CombiningPoint::new(inputs, watermark);
        Ok(machine)
    }

    /// Timers are not stored: they follow from the windows and W (FLINK-5717 lost one in a merge).
    fn set_timers(&mut self, kg: u32, watermark: Watermark, group: &KeyGroup) {
        for (key, windows) in &group.keys {
            for window in windows.keys() {
                let c = self.operator.closing.of(*window);
                if c > watermark {
                    self.fire.insert((c, kg, key.clone(), *window));
                }
                self.purge.insert((self.operator.deadline(c), kg, key.clone(), *window));
            }
        }
    }

    pub fn watermark(&self) -> Watermark {
        self.point.watermark()
    }

    /// Every channel has ended: nothing more will come.
    pub fn is_ended(&self) -> bool {
        self.point.is_ended()
    }

    /// The state the attempt starts from.
    pub fn open(&self, checkpoint: Option<u64>) -> Decision {
        let input = |(name, i): (&String, Input)| OpenInput {
            input: InputId::Channel(name.clone()),
            watermark: i.watermark,
            status: i.status,
            position: None,
        };
        Decision::Open {
            checkpoint,
            watermark: self.point.watermark(),
            inputs: self.point.inputs().map(input).collect(),
            key_groups: self.floors.keys().map(|kg| (*kg, self.watermark_of(*kg))).collect(),
        }
    }

    /// The state of every key group of the task, now: to be called exactly at an aligned barrier.
    pub fn snapshot(&self) -> Vec<(u32, Bytes)> {
        let channels: Vec<(String, Input)> = self.point.inputs().map(|(name, i)| (name.clone(), i)).collect();
        let empty = KeyGroup::default();
        let one = |kg: &u32| {
            let group = self.groups.get(kg).unwrap_or(&empty);
            (*kg, state::encode(self.watermark_of(*kg), &channels, group))
        };
        self.floors.keys().map(one).collect()
    }

    /// Judges records that arrived on one channel, in order.
    pub fn records(&mut self, records: Vec<Record>) -> Vec<Action> {
        for record in records {
            self.judge(record);
        }
        self.flush_judged();
        std::mem::take(&mut self.actions)
    }

    /// Takes a change of one channel's W or status.
    pub fn change(&mut self, channel: &String, change: Change, time_ms: u64) -> Vec<Action> {
        let input = InputId::Channel(channel.clone());
        self.actions.push(Action::Decide(Decision::Advance { input, offset: None, change, time_ms }));
        let before = self.point.watermark();
        self.point.handle(channel, change);
        let now = self.point.watermark();
        assert!(now >= before, "watermark fell from {before} to {now}");
        if now > before {
            self.fire_until(now);
            self.purge_until(now);
        }
        std::mem::take(&mut self.actions)
    }

    fn watermark_of(&self, kg: u32) -> Watermark {
        let floor = self.floors.get(&kg).copied().unwrap_or(Watermark::MIN);
        floor.max(self.point.watermark())
    }

    fn judge(&mut self, record: Record) {
        let kg = keys::key_group(&record.key, self.operator.key_groups);
        assert!(self.floors.contains_key(&kg), "key group {kg} is another task's");
        let watermark = self.watermark_of(kg);
        let mut rows = Vec::new();
        let (mut accepted, mut late) = (false, false);
        let windows = self.operator.assigner.assign(record.event_time_ms);
        if windows.is_empty() {
            let t = Watermark::from_ms(record.event_time_ms);
            late = self.operator.deadline(t) <= watermark;
        }
        for assigned in windows {
            let placement = self.place(kg, &record.key, assigned);
            let c = self.operator.closing.of(placement.window);
            let deadline = self.operator.deadline(c);
            if deadline <= watermark {
                late = true;
                continue;
            }
            accepted = true;
            self.absorb(kg, &record.key, &placement, &mut rows);
            let window = placement.window;
            let group = self.groups.entry(kg).or_default();
            let windows = group.keys.entry(record.key.clone()).or_default();
            let state = windows
                .entry(window)
                .or_insert_with(|| WindowState { content: super::Accumulator::default(), panes: 0 });
            state.content.add(&record);
            self.purge.insert((deadline, kg, record.key.clone(), window));
            if c > watermark {
                self.fire.insert((c, kg, record.key.clone(), window));
            } else if self.operator.trigger.refires() {
                rows.push(pane(&self.operator, &record.key, window, state, Kind::Late));
            }
            env::sometimes!(
                Watermark::from_ms(record.event_time_ms) <= watermark,
                "a record behind the watermark was accepted"
            );
        }
        let to_late = late && !accepted;
        env::sometimes!(to_late, "a record was late for all its windows");
        if rows.is_empty() && !to_late {
            self.coalesce(record.partition, kg, record.offset);
            return;
        }
        self.flush_judged();
        self.judged = Some((record.partition, kg, record.offset, record.offset));
        self.flush_judged();
        self.emit(rows);
        if to_late {
            self.actions.push(Action::Decide(Decision::Late { partition: record.partition, offset: record.offset }));
            self.actions.push(Action::Late(record));
        }
    }

    fn place(&self, kg: u32, key: &Bytes, assigned: Window) -> Placement {
        let live = self.groups.get(&kg).and_then(|g| g.keys.get(key));
        self.operator.merge.place(assigned, &mut live.into_iter().flat_map(|w| w.keys().copied()))
    }

    /// Moves the state of absorbed windows into the one that absorbs them, and takes back what they emitted.
    fn absorb(&mut self, kg: u32, key: &Bytes, placement: &Placement, rows: &mut Vec<Row>) {
        for old in &placement.absorbed {
            let Some(windows) = self.groups.get_mut(&kg).and_then(|g| g.keys.get_mut(key)) else { return };
            let Some(state) = windows.remove(old) else { continue };
            let into = windows
                .entry(placement.window)
                .or_insert_with(|| WindowState { content: super::Accumulator::default(), panes: 0 });
            into.content.merge(&state.content);
            let c = self.operator.closing.of(*old);
            self.fire.remove(&(c, kg, key.clone(), *old));
            self.purge.remove(&(self.operator.deadline(c), kg, key.clone(), *old));
            if let Some(last) = state.panes.checked_sub(1) {
                let content = state.content;
                let (key, kind) = (key.clone(), Kind::Late);
                rows.push(Row { key, window: *old, pane: last, op: Op::Retract, kind, content });
            }
        }
    }

    fn fire_until(&mut self, watermark: Watermark) {
        while let Some((_, kg, key, window)) = pop_due(&mut self.fire, watermark) {
            let state = self.groups.get_mut(&kg).and_then(|g| g.keys.get_mut(&key)).and_then(|w| w.get_mut(&window));
            let state = state.unwrap_or_else(|| panic!("a timer without its window {window:?}"));
            let row = pane(&self.operator, &key, window, state, Kind::OnTime);
            self.emit(vec![row]);
        }
    }

    fn purge_until(&mut self, watermark: Watermark) {
        while let Some((_, kg, key, window)) = pop_due(&mut self.purge, watermark) {
            let Some(group) = self.groups.get_mut(&kg) else { continue };
            if let Some(windows) = group.keys.get_mut(&key) {
                windows.remove(&window);
                if windows.is_empty() {
                    group.keys.remove(&key);
                }
            }
            if group.keys.is_empty() {
                self.groups.remove(&kg);
            }
        }
    }

    fn emit(&mut self, rows: Vec<Row>) {
        for row in rows {
            self.actions.push(Action::Decide(Decision::Fire {
                key: row.key_text(),
                start: row.window.start,
                end: row.window.end,
                pane: row.pane,
                op: row.op,
            }));
            self.actions.push(Action::Emit(row));
        }
    }

    /// Adds a silent judgement to the open range, if it continues it.
    fn coalesce(&mut self, partition: i32, kg: u32, offset: i64) {
        if let Some((p, g, _, last)) = self.judged.as_mut()
            && (*p, *g) == (partition, kg)
            && *last < offset
        {
            *last = offset;
            return;
        }
        self.flush_judged();
        self.judged = Some((partition, kg, offset, offset));
    }

    fn flush_judged(&mut self) {
        if let Some((partition, key_group, first, last)) = self.judged.take() {
            self.actions.push(Action::Decide(Decision::Judge { partition, offsets: (first, last), key_group }));
        }
    }
}

/// The next pane of a window, and counts it.
fn pane(operator: &Operator, key: &Bytes, window: Window, state: &mut WindowState, kind: Kind) -> Row {
    let pane = state.panes;
    state.panes += 1;
    let op = operator.trigger.op(pane);
    Row { key: key.clone(), window, pane, op, kind, content: state.content.clone() }
}

fn pop_due(timers: &mut BTreeSet<Timer>, watermark: Watermark) -> Option<Timer> {
    if timers.first().is_some_and(|(at, ..)| *at <= watermark) { timers.pop_first() } else { None }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
