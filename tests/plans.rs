//! Plans: removing a fault leaves every draw on untouched links as it was, and no valid plan makes the harness panic.

use history::Outcome;
use scenarios::Plan;
use scenarios::plan::{Action, NodeName, Role, Target};
use streamproof::runner::{RunOptions, RunResult, run};

fn traced(plan: &Plan) -> RunResult {
    let result = run(plan, &RunOptions { keep_trace: true, ..RunOptions::default() });
    assert!(!matches!(result.outcome, Outcome::HarnessFailed { .. }), "{:?}", result.outcome);
    result
}

/// Until the first fault strikes, a run without it is the same run, event for event.
#[test]
fn a_removed_fault_changes_nothing_before_it() {
    for seed in 0..4 {
        let mut plan = scenarios::generate("crash_restart", seed).expect("a scenario of the catalogue");
        let node = Target::Node(NodeName::new(Role::Broker, 0));
        plan.faults.retain(|f| matches!(f.action, Action::Crash { node: n, .. } if n == node));
        plan.faults.truncate(1);
        let with = traced(&plan);
        plan.faults.clear();
        let without = traced(&plan);
        let parted = with.trace.iter().zip(&without.trace).position(|(a, b)| a != b);
        let Some(parted) = parted else { continue };
        let first = with.trace.iter().position(|e| e.contains(" crash ")).unwrap_or(usize::MAX);
        // The timer that wakes whoever strikes is an event of the world itself, right before the crash.
        assert!(parted + 1 >= first, "seed {seed}: parted at event {parted}, the crash is event {first}");
    }
}

/// Plans cut down at random stay valid, and running them never is the harness's failure: what shrinking relies on.
#[test]
fn any_part_of_a_plan_runs() {
    for seed in 0..6 {
        let mut plan = scenarios::generate("swarm", seed).expect("a scenario of the catalogue");
        let mut rng = seed::stream(seed, "cut", &[]);
        plan.faults.retain(|_| rng.chance(1, 2));
        for client in &mut plan.clients {
            if let scenarios::plan::ClientRole::Producer(p) = &mut client.role {
                p.batches.retain(|_| rng.chance(1, 4));
                for batch in &mut p.batches {
                    batch.records.retain(|_| rng.chance(3, 4));
                }
            }
        }
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(Plan::from_json(&plan.to_json()).as_ref(), Ok(&plan));
        let result = run(&plan, &RunOptions::default());
        assert!(!matches!(result.outcome, Outcome::HarnessFailed { .. }), "seed {seed}: {:?}", result.outcome);
    }
}
