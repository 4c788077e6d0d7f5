//! A run as a ShiViz log: events of each node with vector clocks, which ShiViz draws as a space-time diagram.
//!
//! The first line is the parser's regular expression, the second is empty, for there is one execution; each further line
//! is one event: `host clock time kind text`, the time in milliseconds. Hosts are the plan's nodes, with all their lives: a
//! disk that outlives a crash is knowledge that outlives it.
//!
//! Guarantees what ShiViz checks: a host's own component counts its events from 1, and no clock knows an event that comes
//! after it. A clock says what could have been known, not what was used.
//!
//! - A message ticks its sender when it is sent and its receiver when it comes to the receiver's machine, which then knows
//!   what the sender knew at the send. A paused process reads it later.
//! - A message is lost if its receiver's process died between the send and the arrival, or was not there: connections end
//!   with a life. Then only the send is an event. Bytes that never arrived are no part of a [`Picture`].
//! - An end that is none of the nodes has no event; the other one stands alone.
//! - Past the messages that the picture holds, clocks know too little: each host tells from where on.
//! - Of a long run only the last [`MAX_EVENTS`] up to the violation are there, or up to the end where nothing is violated.
//!   Each host then begins with how many are not.
//! - Decisions of tasks and the partitions' offsets are left out: a picture does not tell on which node they came to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::lanes::Lane;
use super::picture::Picture;

/// ShiViz puts it between `^` and `$`. It knows no group without a name, so there is none.
const PARSER: &str = r"(?<host>\S+) (?<clock>\{[^}]*\}) (?<at_ms>\S+) (?<kind>\S+) (?<event>.*)";

/// ShiViz's time grows with the square of the events: 14,000 take it 18 s, 50,000 messages would take many minutes.
const MAX_EVENTS: usize = 15_000;

/// What a host knows: of each host, how many of its events.
type Clock<'a> = BTreeMap<&'a str, u64>;

struct Event<'a> {
    at: f64,
    /// Of what happens at one instant: what came in, what was done, what went out, the end of a life.
    order: Order,
    host: &'a str,
    kind: &'static str,
    text: String,
    /// Number of the message that is sent or received.
    message: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Received,
    Done,
    Sent,
    /// A message that took no time: after its send.
    ReceivedAtOnce,
    Died,
}

/// The whole file.
pub fn shiviz(picture: &Picture) -> String {
    let mut events = events(picture);
    // Stable: marks of one instant stay in their order.
    events.sort_by(|a, b| a.at.total_cmp(&b.at).then(a.order.cmp(&b.order)));
    shorten(&mut events, picture.violated, MAX_EVENTS);
    let mut out = format!("{PARSER}\n\n");
    let mut clocks: BTreeMap<&str, Clock<'_>> = BTreeMap::new();
    let mut sent: BTreeMap<usize, Clock<'_>> = BTreeMap::new();
    for event in events {
        let clock = clocks.entry(event.host).or_default();
        if event.order != Order::Sent {
            for (host, n) in event.message.and_then(|id| sent.remove(&id)).into_iter().flatten() {
                clock.entry(host).and_modify(|known| *known = n.max(*known)).or_insert(n);
            }
        }
        *clock.entry(event.host).or_default() += 1;
        if let (Order::Sent, Some(id)) = (event.order, event.message) {
            sent.insert(id, clock.clone());
        }
        let known = serde_json::to_string(&*clock).expect("clocks serialise");
        let Event { at, host, kind, text, .. } = event;
        writeln!(out, "{host} {known} {at:.3} {kind} {}", one_line(&text)).expect("a string takes all");
    }
    out
}

/// What comes after the violation did not cause it: it goes first, then what is longest ago. `events` are in order.
fn shorten(events: &mut Vec<Event<'_>>, violated: Option<f64>, max: usize) {
    let all = events.len();
    if all <= max {
        return;
    }
    let end = violated.map_or(all, |at| events.partition_point(|e| e.at <= at)).max(max);
    events.truncate(end);
    events.drain(..end - max);
    let text = format!("{} earlier and {} later events are not in this log", end - max, all - end);
    let from = events.first().map_or(0.0, |e| e.at);
    let hosts: BTreeSet<&str> = events.iter().map(|e| e.host).collect();
    events.splice(0..0, hosts.into_iter().map(|host| local(from, host, "note", text.clone())));
}

fn local<'a>(at: f64, host: &'a str, kind: &'static str, text: String) -> Event<'a> {
    Event { at, order: Order::Done, host, kind, text, message: None }
}

/// In no order.
fn events(picture: &Picture) -> Vec<Event<'_>> {
    let text = |i: u32| picture.strings.get(i as usize).map(String::as_str).unwrap_or_default();
    // They are the first of the lanes.
    let nodes: Vec<&Lane> = picture.lanes.iter().take_while(|lane| lane.group == "nodes").collect();
    let mut all = Vec::new();
    for lane in &nodes {
        for mark in &lane.marks {
            let died = mark.1 == "turn" && down(lane).any(|(from, _)| from == mark.0);
            let order = if died { Order::Died } else { Order::Done };
            all.push(Event { order, ..local(mark.0, &lane.name, mark.1, text(mark.2).to_owned()) });
        }
    }
    for op in &picture.ops {
        let client = format!("client-{}", op.0);
        let Some(lane) = nodes.iter().find(|lane| lane.name == client) else { continue };
        let name = format!("{} {}", text(op.2), op.1);
        if op.7 >= 0.0 {
            let kind = ["ok", "failed", "unknown"][usize::from(op.8).min(2)];
            all.push(local(op.7, &lane.name, kind, format!("{name}: {}", text(op.9))));
        }
        all.push(local(op.6, &lane.name, "invoke", name));
    }
    for (from, to, kind, target, effect, struck) in &picture.faults {
        for lane in struck.iter().filter_map(|lane| nodes.get(*lane)) {
            all.push(local(*from, &lane.name, "fault", format!("{kind} {target}: {effect}")));
            if from < to && *to < picture.end {
                all.push(local(*to, &lane.name, "healed", format!("{kind} {target} is over")));
            }
        }
    }
    for (id, (sent, arrived, from, to, bytes)) in picture.messages.iter().enumerate() {
        let name = |node: Option<&&Lane>| node.map_or("nobody known", |lane| lane.name.as_str()).to_owned();
        let (from, to) = (nodes.get(*from), nodes.get(*to));
        let lost = to.is_some_and(|lane| down(lane).any(|(since, until)| since < *arrived && *sent < until));
        let message = Some(id);
        if let Some(lane) = from {
            let end = if lost { ", which is gone when they arrive" } else { "" };
            let text = format!("{bytes} bytes to {}{end}", name(to));
            all.push(Event { order: Order::Sent, message, ..local(*sent, &lane.name, "send", text) });
        }
        if let Some(lane) = to.filter(|_| !lost) {
            let order = if sent < arrived { Order::Received } else { Order::ReceivedAtOnce };
            let text = format!("{bytes} bytes from {}", name(from));
            all.push(Event { order, message, ..local(*arrived, &lane.name, "receive", text) });
        }
    }
    if picture.messages_left_out > 0 {
        let last = picture.messages.iter().map(|m| m.1).fold(0.0, f64::max);
        let text = format!("from here on {} messages are not in this log", picture.messages_left_out);
        all.extend(nodes.iter().map(|lane| local(last, &lane.name, "note", text.clone())));
    }
    all
}

/// When the node had no process: (from, to).
fn down(lane: &Lane) -> impl Iterator<Item = (f64, f64)> {
    lane.bands.iter().filter(|band| matches!(band.3, "down" | "off")).map(|band| (band.0, band.1))
}

/// Without what ends a line in JavaScript's regular expressions.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ")
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{Band, Mark};
    use super::*;

    /// One event as ShiViz reads it: (host, clock, kind, text).
    type Read = (String, BTreeMap<String, u64>, String, String);

    /// Reads a log and checks it by what ShiViz demands, with nothing of the code above: each host's own component counts
    /// from 1, and each clock is what its event's predecessors knew, which come before it.
    fn read(log: &str) -> Vec<Read> {
        let lines: Vec<&str> = log.split('\n').collect();
        assert_eq!((lines[0], lines[1]), (PARSER, ""));
        let all: Vec<Read> = lines[2..lines.len() - 1]
            .iter()
            .map(|line| {
                let (host, rest) = line.split_once(' ').expect("a host");
                let (clock, rest) = rest.split_once("} ").expect("a clock");
                let words: Vec<&str> = rest.splitn(3, ' ').collect();
                words[0].parse::<f64>().expect("a time");
                assert!(!words[2].trim().is_empty(), "{line}");
                let clock = serde_json::from_str(&format!("{clock}}}")).expect("JSON");
                (host.to_owned(), clock, words[1].to_owned(), words[2].to_owned())
            })
            .collect();
        let mut before: BTreeMap<(&str, u64), &BTreeMap<String, u64>> = BTreeMap::new();
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (host, clock, ..) in &all {
            let (own, count) = (clock[host], counts.entry(host).or_default());
            *count += 1;
            assert_eq!(own, *count, "{host} skips an event");
            for (other, n) in clock.iter().filter(|(other, _)| *other != host) {
                let known = before.get(&(other.as_str(), *n));
                let known = known.unwrap_or_else(|| panic!("{host} {own} knows {other} {n}, which comes later"));
                for (third, n) in *known {
                    assert!(clock.get(third) >= Some(n), "{host} {own} knows {other}, not what that knew of {third}");
                }
            }
            if let Some(last) = before.get(&(host.as_str(), own - 1)) {
                assert!(last.iter().all(|(of, n)| clock.get(of) >= Some(n)), "{host} {own} has forgotten something");
            }
            before.insert((host.as_str(), own), clock);
        }
        all
    }

    fn node(name: &str, down: &[(f64, f64)], marks: &[(f64, u32)]) -> Lane {
        let bands = down.iter().map(|(from, to)| Band(*from, *to, 0, "down", 0)).collect();
        let marks = marks.iter().map(|(at, text)| Mark(*at, "turn", *text, -1, -1, -1)).collect();
        Lane { group: "nodes", name: name.into(), bands, marks, lines: Vec::new() }
    }

    fn picture(lanes: Vec<Lane>, messages: &[(f64, f64, usize, usize, u32)]) -> Picture {
        let strings =
            ["broker-0: crash", "broker-0: restart", "produce", "two\r\nlines\u{2028}and\u{85}more", "orders-0"];
        Picture {
            name: "swarm/1".into(),
            verdict: "pass",
            failed: false,
            end: 100.0,
            violated: None,
            facts: Vec::new(),
            told: None,
            strings: strings.map(str::to_owned).to_vec(),
            phases: Vec::new(),
            lanes,
            faults: Vec::new(),
            messages: messages.to_vec(),
            messages_left_out: 0,
            ops: Vec::new(),
            watermarks: Vec::new(),
            records: Vec::new(),
            panes: Vec::new(),
            properties: Vec::new(),
            notes: Vec::new(),
            guilty_window: None,
        }
    }

    fn clock<const N: usize>(of: [(&str, u64); N]) -> BTreeMap<String, u64> {
        of.map(|(host, n)| (host.to_owned(), n)).into()
    }

    fn two() -> Vec<Lane> {
        vec![node("broker-0", &[], &[]), node("client-0", &[], &[])]
    }

    #[test]
    fn a_receipt_knows_what_the_sender_knew_at_the_send() {
        let mut lanes = two();
        lanes.push(node("client-1", &[], &[]));
        // The client sends twice before the first comes, and the broker answers the other client.
        let log = shiviz(&picture(lanes, &[(1.0, 5.0, 1, 0, 10), (2.0, 6.0, 1, 0, 20), (5.0, 7.0, 0, 2, 30)]));
        let all = read(&log);
        assert_eq!(log.lines().nth(2), Some("client-0 {\"client-0\":1} 1.000 send 10 bytes to broker-0"));
        assert_eq!(all[2].1, clock([("broker-0", 1), ("client-0", 1)]), "not the second send");
        assert_eq!(all[3].1, clock([("broker-0", 2), ("client-0", 1)]), "what comes in is known to what goes out");
        assert_eq!(all[4].1, clock([("broker-0", 3), ("client-0", 2)]));
        assert_eq!(all[5].1, clock([("broker-0", 2), ("client-0", 1), ("client-1", 1)]));
    }

    #[test]
    fn what_is_sent_to_a_node_that_is_gone_is_sent_only() {
        let lanes = vec![node("broker-0", &[(10.0, 20.0)], &[(10.0, 0), (20.0, 1)]), node("client-0", &[], &[])];
        // In time, at the very end, across the crash, while it is down, to its next life's connections.
        let messages = [(1.0, 2.0), (9.0, 10.0), (9.0, 12.0), (11.0, 12.0), (19.0, 21.0), (20.5, 22.0)];
        let all = read(&shiviz(&picture(lanes, &messages.map(|(sent, arrived)| (sent, arrived, 1, 0, 5)))));
        let broker: Vec<(&str, &str)> =
            all.iter().filter(|e| e.0 == "broker-0").map(|e| (e.2.as_str(), e.3.as_str())).collect();
        let received = ("receive", "5 bytes from client-0");
        assert_eq!(
            broker,
            [received, received, ("turn", "broker-0: crash"), ("turn", "broker-0: restart"), received],
            "a node's lives are one host"
        );
        let lost = all.iter().filter(|e| e.3 == "5 bytes to broker-0, which is gone when they arrive").count();
        assert_eq!(lost, 3);
    }

    #[test]
    fn an_end_that_is_no_node_has_no_event() {
        let all = read(&shiviz(&picture(two(), &[(1.0, 2.0, 7, 0, 5), (3.0, 4.0, 1, 7, 6)])));
        let told: Vec<(&str, &str)> = all.iter().map(|e| (e.0.as_str(), e.3.as_str())).collect();
        assert_eq!(told, [("broker-0", "5 bytes from nobody known"), ("client-0", "6 bytes to nobody known")]);
    }

    #[test]
    fn within_an_instant_causes_come_first() {
        // A request that is answered at once, and an answer that takes no time.
        let lanes = vec![node("broker-0", &[(3.0, 9.0)], &[(3.0, 0)]), node("client-0", &[], &[])];
        let all = read(&shiviz(&picture(lanes, &[(1.0, 3.0, 1, 0, 1), (3.0, 3.0, 0, 1, 2)])));
        let kinds: Vec<&str> = all.iter().map(|e| e.2.as_str()).collect();
        assert_eq!(kinds, ["send", "receive", "send", "receive", "turn"]);
    }

    #[test]
    fn operations_and_faults_are_their_nodes_own() {
        let mut picture = picture(two(), &[]);
        picture.ops.push((0, 4, 2, 4, -1, -1, 1.0, 8.0, 0, 3, false));
        picture.faults.push((2.0, 6.0, "pause".into(), "broker-0".into(), "4 paused\nms".into(), vec![0]));
        let log = shiviz(&picture);
        let told: Vec<_> = read(&log).into_iter().map(|e| (e.0, e.2, e.3)).collect();
        let expected = [
            ("client-0", "invoke", "produce 4"),
            ("broker-0", "fault", "pause broker-0: 4 paused ms"),
            ("broker-0", "healed", "pause broker-0 is over"),
            ("client-0", "ok", "produce 4: two  lines and more"),
        ];
        assert_eq!(told, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        assert_eq!(log.lines().count(), 2 + 4);
    }

    #[test]
    fn a_log_tells_what_is_not_in_it() {
        let mut picture = picture(two(), &[(1.0, 2.0, 1, 0, 5)]);
        picture.messages_left_out = 9;
        let all = read(&shiviz(&picture));
        let notes: Vec<&str> = all.iter().filter(|e| e.2 == "note").map(|e| e.0.as_str()).collect();
        assert_eq!(notes, ["broker-0", "client-0"]);
    }

    #[test]
    fn a_long_run_is_told_up_to_its_violation() {
        let many: Vec<_> = (0..u32::try_from(MAX_EVENTS).unwrap())
            .map(|n| (f64::from(n), f64::from(n) + 1.5, n as usize % 2, 1 - n as usize % 2, n))
            .collect();
        let mut picture = picture(two(), &many);
        picture.violated = Some(f64::from(MAX_EVENTS as u32) - 100.0);
        let all = read(&shiviz(&picture));
        assert_eq!(all.len(), MAX_EVENTS + 2);
        assert!(all[0].2 == "note" && all[1].2 == "note" && all[0].3.ends_with("later events are not in this log"));
        assert!(all.last().is_some_and(|e| e.3.starts_with("14900 bytes to")), "{:?}", all.last());
        assert!(all[2..].iter().take(4).any(|e| e.2 == "receive" && e.1.len() == 1), "its send is not in the log");
    }
}
