//! `streamproof list`.

use reports::{LineType, json_line};
use scenarios::catalogue;
use scenarios::plan::Family;
use serde::Serialize;

use super::args::{Format, ListArgs, ListWhat};
use super::{Refusal, out};
use crate::bugs;
use crate::exit::Exit;

#[derive(Serialize)]
struct Item {
    name: String,
    about: String,
}

pub fn run(args: ListArgs) -> Result<Exit, Refusal> {
    let (kind, items) = match args.what {
        ListWhat::Scenarios => (LineType::Scenario, scenarios()),
        ListWhat::Invariants => (LineType::Invariant, invariants()),
        ListWhat::Faults => (LineType::Fault, faults()),
        ListWhat::Bugs => (LineType::Bug, bugs()?),
        ListWhat::Sometimes => (LineType::Sometimes, sometimes()),
    };
    if items.is_empty() {
        return Err(Refusal::nothing("there are none"));
    }
    let width = items.iter().map(|item| item.name.chars().count()).max().unwrap_or(0);
    for Item { name, about } in &items {
        match args.format {
            Format::Text => out::line(format!("{name:width$}  {about}").trim_end()),
            Format::Json => out::line(&json_line(kind, &Item { name: name.clone(), about: about.clone() })),
        }
    }
    Ok(Exit::Pass)
}

fn scenarios() -> Vec<Item> {
    let about = |entry: &catalogue::Entry| entry.story.split_whitespace().collect::<Vec<_>>().join(" ");
    catalogue::list().iter().map(|e| Item { name: e.name.into(), about: about(e) }).collect()
}

fn invariants() -> Vec<Item> {
    let about = |p: &invariants::Property| format!("{} ({})", p.statement, p.source);
    let mut items: Vec<Item> =
        invariants::all().iter().map(|p| Item { name: p.name.into(), about: about(p) }).collect();
    let about = "each phase of a run ends within its budget once the faults have stopped (semantics rule 26)";
    items.push(Item { name: bugs::LIVENESS.into(), about: about.into() });
    items
}

fn faults() -> Vec<Item> {
    Family::ALL.iter().map(|f| Item { name: f.name().into(), about: f.story().into() }).collect()
}

fn bugs() -> Result<Vec<Item>, Refusal> {
    let checkout = bugs::checkout().map_err(Refusal::usage)?;
    let bugs = bugs::read_all(&checkout).map_err(Refusal::usage)?;
    let about = |bug: &bugs::Bug| format!("{} (found by {})", bug.what, bug.checks.join(" or "));
    Ok(bugs.iter().map(|bug| Item { name: bug.name.clone(), about: about(bug) }).collect())
}

fn sometimes() -> Vec<Item> {
    let about = |mark: &env::probe::Mark| format!("{}:{}", mark.file, mark.line);
    env::probe::marks().into_iter().map(|m| Item { name: m.label.into(), about: about(m) }).collect()
}
