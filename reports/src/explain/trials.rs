//! What other runs say of a failure: without each fault, and with another end from each instant on.

use serde::{Deserialize, Serialize};

/// Runs that failed in the same way, of those that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    pub failing: u64,
    pub tried: u64,
}

impl Runs {
    pub fn add(&mut self, failed: bool) {
        self.failing += u64::from(failed);
        self.tried += 1;
    }

    /// Of those tried; `None` before the first.
    pub fn share(self) -> Option<f64> {
        (self.tried > 0).then(|| self.failing as f64 / self.tried as f64)
    }
}

impl std::fmt::Display for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.failing, self.tried)
    }
}

/// The plan without one of its faults, under its own schedule and others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultTrial {
    /// Number in the plan.
    pub id: u32,
    pub what: String,
    pub did_bite: bool,
    pub without: Runs,
    pub need: Need,
}

/// What a fault had to do with the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Without it no run failed.
    Necessary,
    /// Without it fewer runs failed than with it.
    Helps,
    /// Without it as many failed.
    NotNeeded,
    /// Time was up before enough runs were made.
    Unknown,
}

impl Need {
    /// From runs with all faults and runs without one. Half as many is fewer; a difference of one run is chance.
    pub fn of(with: Runs, without: Runs, enough: u64) -> Need {
        match (with.share(), without.share()) {
            (Some(with), Some(without_share)) if without.tried >= enough => match without.failing {
                0 => Need::Necessary,
                _ if without_share * 2.0 <= with => Need::Helps,
                _ => Need::NotNeeded,
            },
            _ => Need::Unknown,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Need::Necessary => "necessary",
            Need::Helps => "helps",
            Need::NotNeeded => "not needed",
            Need::Unknown => "not known",
        }
    }
}

/// The probability of the failure over simulated time: everything up to an instant as it was, everything after it drawn
/// anew, again and again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Runs made of each point if time allows.
    pub tails: u64,
    /// In order of time.
    pub points: Vec<CurvePoint>,
    /// The first instant from which on every run of every later point failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inevitable_ms: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    pub at_ms: f64,
    /// What had just happened.
    pub after: String,
    pub runs: Runs,
}

impl Curve {
    pub fn new(tails: u64, points: Vec<CurvePoint>) -> Self {
        let certain = |p: &CurvePoint| p.runs.tried > 0 && p.runs.failing == p.runs.tried;
        let from = points.iter().rposition(|p| !certain(p)).map_or(0, |last| last + 1);
        let inevitable_ms = points.get(from).map(|p| p.at_ms);
        Self { tails, points, inevitable_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(failing: u64, tried: u64) -> Runs {
        Runs { failing, tried }
    }

    #[test]
    fn a_fault_is_necessary_if_nothing_fails_without_it() {
        let with = runs(8, 8);
        for (without, need) in [
            (runs(0, 8), Need::Necessary),
            (runs(2, 8), Need::Helps),
            (runs(7, 8), Need::NotNeeded),
            (runs(0, 1), Need::Unknown),
            (runs(0, 0), Need::Unknown),
        ] {
            assert_eq!(Need::of(with, without, 2), need, "{without}");
        }
    }

    #[test]
    fn inevitable_is_from_where_no_later_run_escapes() {
        let curve = |shares: &[(u64, u64)]| {
            let point = |(n, (failing, tried)): (usize, &(u64, u64))| CurvePoint {
                at_ms: n as f64,
                after: String::new(),
                runs: runs(*failing, *tried),
            };
            Curve::new(8, shares.iter().enumerate().map(point).collect()).inevitable_ms
        };
        assert_eq!(curve(&[(1, 8), (8, 8), (7, 8), (8, 8), (8, 8)]), Some(3.0));
        assert_eq!(curve(&[(8, 8), (8, 8)]), Some(0.0));
        assert_eq!(curve(&[(8, 8), (7, 8)]), None);
        assert_eq!(curve(&[(8, 8), (0, 0)]), None);
        assert_eq!(curve(&[]), None);
    }
}
