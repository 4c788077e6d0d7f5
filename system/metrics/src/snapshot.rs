//! Measurements as they are at one moment: families of samples, and their text.
//!
//! Format: Prometheus text exposition 0.0.4. Families are written in the order of their names and samples in the order
//! they were measured, so equal states give equal bytes. A family holds at most [`MAX_SERIES`] series of one node; what is
//! beyond is left out and counted in `streamproof_metrics_dropped_series`, so that no topic, group or client can make a
//! scrape grow without bound.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

/// Series of one family, of one node.
pub const MAX_SERIES: usize = 10_000;

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const DROPPED: &str = "streamproof_metrics_dropped_series";

/// Names and values that tell the series of a family apart.
pub type Labels<'a> = &'a [(&'static str, &'a dyn Display)];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

#[derive(Clone, Debug)]
struct Family {
    kind: Kind,
    help: &'static str,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: i128,
}

/// The measurements of one node, or of several that were [merged](Snapshot::merge). It may leave the node's thread.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    families: BTreeMap<&'static str, Family>,
    dropped: u64,
}

impl Snapshot {
    /// What only rises; by convention the name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: u64) {
        self.add(Kind::Counter, name, help, labels, value.into());
    }

    /// What goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: i64) {
        self.add(Kind::Gauge, name, help, labels, value.into());
    }

    fn add(&mut self, kind: Kind, name: &'static str, help: &'static str, labels: Labels<'_>, value: i128) {
        let family = self.families.entry(name).or_insert_with(|| Family { kind, help, samples: Vec::new() });
        if family.samples.len() >= MAX_SERIES {
            self.dropped += 1;
            return;
        }
        let labels = labels.iter().map(|(name, value)| (*name, value.to_string())).collect();
        family.samples.push(Sample { labels, value });
    }

    /// Takes in what `node` measured; each of its series gets the label `node`.
    pub fn merge(&mut self, node: &str, mut other: Snapshot) {
        other.seal();
        for (name, family) in other.families {
            let empty = || Family { samples: Vec::new(), ..family };
            let samples = family.samples.into_iter().map(|mut sample| {
                sample.labels.insert(0, ("node", node.to_owned()));
                sample
            });
            self.families.entry(name).or_insert_with(empty).samples.extend(samples);
        }
    }

    /// Says how much was left out.
    fn seal(&mut self) {
        let dropped = i64::try_from(self.dropped).unwrap_or(i64::MAX);
        self.dropped = 0;
        let none_yet = !self.families.contains_key(DROPPED);
        if none_yet || dropped > 0 {
            self.gauge(DROPPED, "Series left out because their family has too many", &[], dropped);
        }
    }

    /// The text that Prometheus reads.
    pub fn render(mut self) -> String {
        if self.dropped > 0 {
            self.seal();
        }
        let mut out = String::new();
        for (name, family) in &self.families {
            // Writing to a string does not fail.
            let _ = family.write(name, &mut out);
        }
        out
    }
}

impl Family {
    fn write(&self, name: &str, out: &mut String) -> fmt::Result {
        writeln!(out, "# HELP {name} {}", self.help.replace('\\', "\\\\").replace('\n', "\\n"))?;
        writeln!(out, "# TYPE {name} {}", self.kind.name())?;
        for sample in &self.samples {
            out.push_str(name);
            for (n, (label, value)) in sample.labels.iter().enumerate() {
                write!(out, "{}{label}=\"", if n == 0 { '{' } else { ',' })?;
                escape(value, out);
                out.push('"');
            }
            if !sample.labels.is_empty() {
                out.push('}');
            }
            writeln!(out, " {}", sample.value)?;
        }
        Ok(())
    }
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_in_order_and_escaped() {
        let mut s = Snapshot::default();
        s.counter("b_total", "Second", &[("topic", &"a\"b\\c\nd"), ("partition", &3)], u64::MAX);
        s.gauge("a", "First\nof two", &[], -1);
        s.counter("b_total", "Second", &[("topic", &"t"), ("partition", &0)], 0);
        assert_eq!(
            s.render(),
            concat!(
                "# HELP a First\\nof two\n# TYPE a gauge\na -1\n",
                "# HELP b_total Second\n# TYPE b_total counter\n",
                "b_total{topic=\"a\\\"b\\\\c\\nd\",partition=\"3\"} 18446744073709551615\n",
                "b_total{topic=\"t\",partition=\"0\"} 0\n",
            )
        );
    }

    #[test]
    fn nodes_share_families_and_each_has_its_label() {
        let node = |value| {
            let mut s = Snapshot::default();
            s.gauge("up", "Whether it answers", &[], value);
            s
        };
        let mut all = Snapshot::default();
        all.merge("broker-0", node(1));
        all.merge("broker-1", node(0));
        let text = all.render();
        assert_eq!(text.matches("# TYPE up gauge").count(), 1);
        assert!(text.ends_with("up{node=\"broker-0\"} 1\nup{node=\"broker-1\"} 0\n"), "{text}");
        assert!(text.contains("streamproof_metrics_dropped_series{node=\"broker-1\"} 0\n"), "{text}");
    }

    #[test]
    fn a_family_is_bounded_and_says_so() {
        let mut s = Snapshot::default();
        for n in 0..MAX_SERIES + 7 {
            s.gauge("many", "Too many", &[("n", &n)], 1);
        }
        let mut all = Snapshot::default();
        all.merge("n", s.clone());
        for text in [s.render(), all.render()] {
            assert_eq!(text.matches("many{").count(), MAX_SERIES);
            assert!(text.lines().any(|l| l.starts_with(DROPPED) && l.ends_with(" 7")), "{text}");
        }
    }
}
