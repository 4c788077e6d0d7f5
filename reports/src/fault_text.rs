//! A planned fault in a few words.

use scenarios::plan::{Fault, Partition, Target, TopicRef, Trigger, When};

/// `power at broker-0, 2.345 s after the clients' start`.
pub fn describe(fault: &Fault) -> String {
    let targets: Vec<String> = fault.action.targets().into_iter().map(target).collect();
    let kind = fault.action.kind().replace('_', " ");
    let when = match &fault.trigger {
        Trigger::At { ms } => format!("{}.{:03} s after the clients' start", ms / 1000, ms % 1000),
        Trigger::CrashPoint(point) => {
            let side = if point.when == When::Before { "before" } else { "after" };
            let partition = point.partition.map_or(String::new(), |p| format!(" on partition {p}"));
            format!("{side} the {} {}{partition}", ordinal(point.nth), point.label)
        }
    };
    match fault.action.duration_ms() {
        0 => format!("{kind} at {}, {when}", targets.join(" and ")),
        ms => format!("{kind} at {} for {ms} ms, {when}", targets.join(" and ")),
    }
}

fn target(target: Target) -> String {
    match target {
        Target::Node(name) => name.to_string(),
        Target::Role(role) => format!("some {}", role.name()),
        Target::Leader(at) => format!("the leader of {}", partition(at)),
        Target::Follower(at) => format!("a follower of {}", partition(at)),
        Target::Followers(at) => format!("the followers of {}", partition(at)),
        Target::Controller => "the controller".to_owned(),
    }
}

fn partition(at: Partition) -> String {
    match at.topic {
        TopicRef::Workload(topic) => format!("partition {} of topic {topic}", at.partition),
        TopicRef::Offsets => format!("the groups of partition {}", at.partition),
        TopicRef::Transactions => format!("the transactions of partition {}", at.partition),
    }
}

fn ordinal(n: u32) -> String {
    let suffix = match (n % 10, n % 100) {
        (1, r) if r != 11 => "st",
        (2, r) if r != 12 => "nd",
        (3, r) if r != 13 => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_swarm_has_words() {
        let plan = scenarios::generate("swarm", 3).expect("a scenario");
        assert!(!plan.faults.is_empty());
        for fault in &plan.faults {
            let text = describe(fault);
            assert!(text.contains(" at ") && !text.contains('_') || text.contains("crash"), "{text}");
        }
        let ordinals: Vec<String> = [1, 2, 3, 4, 11, 12, 21].into_iter().map(ordinal).collect();
        assert_eq!(ordinals, ["1st", "2nd", "3rd", "4th", "11th", "12th", "21st"]);
    }
}
