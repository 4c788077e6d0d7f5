//! The committed attempt (rule 22): the chain of epochs whose transactions committed, from the log's markers and not
//! from the processor's word.

use std::collections::{BTreeMap, BTreeSet};

use history::{Decision, DecisionEntry, Witness};
use models::json::Json;
use models::replay::Committed;

use crate::{Context, Fate};

/// A record of the epochs topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub generation: u64,
    pub task: String,
    pub n: u64,
    pub fate: Fate,
    /// Where the transaction's control record is: (partition, offset); `None` if it has none.
    pub ended_at: Option<(i32, i64)>,
    pub place: String,
}

/// The committed epochs, and what is wrong with them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    /// In order of n.
    pub epochs: Vec<Committed>,
    /// (message, witness).
    pub problems: Vec<(String, Witness)>,
    /// Epochs some of whose transactions have no end yet.
    pub undecided: Vec<String>,
}

impl Marker {
    /// Reads the epochs topic of a history.
    pub(crate) fn from_topic(context: &Context<'_>, topic: &str) -> Result<Vec<Marker>, String> {
        let mut markers = Vec::new();
        let mut any = false;
        for (partition, raw) in context.raw_topic(topic) {
            any = true;
            let mut ends: BTreeMap<i64, i64> = BTreeMap::new();
            for (record, fate) in raw.log.records.iter().zip(&raw.fates).rev() {
                if record.control.is_some() {
                    ends.insert(record.producer_id, record.offset);
                    continue;
                }
                let place = format!("{topic}-{partition} offset {}", record.offset);
                let (generation, task, n) = record
                    .value
                    .as_deref()
                    .and_then(Marker::parse)
                    .ok_or_else(|| format!("{place} is no epoch record"))?;
                let ended = ends.get(&record.producer_id).filter(|_| record.transactional);
                let ended_at = ended.map(|offset| (partition, *offset));
                markers.push(Marker { generation, task, n, fate: *fate, ended_at, place });
            }
        }
        if any { Ok(markers) } else { Err(format!("no final read of topic {topic}")) }
    }

    /// `{"generation":g,"task":"window-0","n":n}`.
    pub fn parse(value: &[u8]) -> Option<(u64, String, u64)> {
        let json = Json::parse(value).ok()?;
        let number = |name: &str| match json.get(name) {
            Some(Json::Number(text)) => text.parse().ok(),
            _ => None,
        };
        match json.get("task") {
            Some(Json::String(task)) => Some((number("generation")?, task.clone().into_owned(), number("n")?)),
            _ => None,
        }
    }
}

impl Chain {
    /// Each n once, in one generation, by all of its tasks.
    pub fn of_markers(markers: &[Marker], decisions: &[DecisionEntry], tasks: &[String]) -> Chain {
        let mut chain = Chain::default();
        let mut by_epoch: BTreeMap<u64, BTreeMap<u64, BTreeMap<&str, Vec<&Marker>>>> = BTreeMap::new();
        for marker in markers {
            let epoch = by_epoch.entry(marker.n).or_default().entry(marker.generation).or_default();
            epoch.entry(&marker.task).or_default().push(marker);
        }
        for (n, generations) in by_epoch {
            let mut committed = Vec::new();
            for (generation, by_task) in generations {
                let mut done: BTreeSet<&str> = BTreeSet::new();
                let mut open = None;
                for (task, markers) in &by_task {
                    let visible: Vec<_> = markers.iter().filter(|m| m.fate.is_visible()).collect();
                    if let Some(second) = visible.get(1) {
                        let message = format!("{task} committed epoch {n} of generation {generation} twice");
                        let witness =
                            Witness::at(&second.place).expected(format_args!("once, at {}", visible[0].place));
                        chain.problems.push((message, witness.found("again")));
                    }
                    if !visible.is_empty() {
                        done.insert(task);
                    }
                    open = open.or(markers.iter().find(|m| m.fate == Fate::Open));
                }
                if done.is_empty() {
                    continue;
                }
                let expected = expected_tasks(generation, decisions, tasks);
                let missing: Vec<&String> = expected.iter().filter(|task| !done.contains(task.as_str())).collect();
                if let Some(first) = missing.first() {
                    if let Some(open) = open {
                        chain.undecided.push(format!("epoch {n} of generation {generation}: {} is open", open.place));
                    } else {
                        let who: Vec<&str> = done.iter().copied().collect();
                        let witness =
                            Witness::default().about(format_args!("{first} in epoch {n}, generation {generation}"));
                        let witness = witness.expected(format_args!("committed, as by {}", who.join(", ")));
                        let witness = match by_task.get(first.as_str()) {
                            Some(markers) => {
                                Witness { place: Some(markers[0].place.clone()), ..witness.found("aborted") }
                            }
                            None => witness.found("no record of it"),
                        };
                        let message = format!("epoch {n} of generation {generation} is committed in part");
                        chain.problems.push((message, witness));
                    }
                }
                let place = by_task.values().flatten().find(|m| m.fate.is_visible()).map(|m| m.place.clone());
                committed.push((generation, place.unwrap_or_default()));
            }
            if let [(first, _), (second, place), ..] = &committed[..] {
                let message = format!("epoch {n} is committed twice");
                let witness = Witness::at(place).about(format_args!("epoch {n}"));
                let witness = witness.expected(format_args!("in generation {first} only"));
                chain.problems.push((message, witness.found(format_args!("in generation {second} too"))));
            }
            if let Some((generation, _)) = committed.first() {
                chain.epochs.push(Committed { n, generation: *generation });
            }
        }
        chain.in_sequence();
        chain
    }

    /// From the decisions alone, all of them committed.
    pub fn of_barriers(decisions: &[DecisionEntry]) -> Chain {
        let mut chain = Chain::default();
        let mut barriers: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for entry in decisions {
            if let Decision::Barrier { n, .. } = entry.decision {
                barriers.entry(n).or_default().insert(entry.generation);
            }
        }
        for (n, generations) in barriers {
            let all: Vec<u64> = generations.into_iter().collect();
            if let [first, second, ..] = all[..] {
                let message = format!("epoch {n} is committed twice");
                let witness = Witness::at(format_args!("epoch {n}"));
                let witness = witness.expected(format_args!("in generation {first} only"));
                chain.problems.push((message, witness.found(format_args!("in generation {second} too"))));
            }
            chain.epochs.push(Committed { n, generation: all[0] });
        }
        chain.in_sequence();
        chain
    }

    fn in_sequence(&mut self) {
        let mut before: Option<Committed> = None;
        for epoch in &self.epochs {
            let due = before.map_or(1, |b| b.n + 1);
            if epoch.n != due {
                let message = format!("epoch {due} is missing from the committed chain");
                let witness = Witness::at("the committed chain").expected(format_args!("epoch {due}"));
                let found = format_args!("epoch {} of generation {}", epoch.n, epoch.generation);
                self.problems.push((message, witness.found(found)));
            }
            if let Some(before) = before.filter(|b| b.generation > epoch.generation) {
                let message = "an older attempt committed after a newer one".to_owned();
                let witness = Witness::at(format_args!("epoch {}", epoch.n));
                let witness = witness.expected(format_args!("generation {} or later", before.generation));
                self.problems.push((message, witness.found(format_args!("generation {}", epoch.generation))));
            }
            before = Some(*epoch);
        }
    }
}

fn expected_tasks(generation: u64, decisions: &[DecisionEntry], tasks: &[String]) -> Vec<String> {
    if !tasks.is_empty() {
        return tasks.to_vec();
    }
    let opened: BTreeSet<&String> = decisions.iter().filter(|e| e.generation == generation).map(|e| &e.task).collect();
    opened.into_iter().cloned().collect()
}
