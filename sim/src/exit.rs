//! What the process's exit code says.

use std::process::ExitCode;

use reports::Verdict;

/// Exit codes of `streamproof`. They are API: a number never changes its meaning.
///
/// Of several outcomes the worst wins: 16 > 13 > 10 > 12 > 11 > 14 > 15, and 1 (streamproof itself failed) above them
/// all, since nothing else can be trusted then. [`Exit::meaning`] says what each one says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    Pass = 0,
    Failed = 1,
    Usage = 2,
    NothingSelected = 4,
    Unsafe = 10,
    NotLive = 11,
    Panicked = 12,
    NotDeterministic = 13,
    Inconclusive = 14,
    NotReached = 15,
    Blind = 16,
    Interrupted = 130,
}

impl Exit {
    /// From the worst to the best.
    const WORST_FIRST: [Exit; 12] = [
        Exit::Failed,
        Exit::Blind,
        Exit::NotDeterministic,
        Exit::Unsafe,
        Exit::Panicked,
        Exit::NotLive,
        Exit::Inconclusive,
        Exit::NotReached,
        Exit::Usage,
        Exit::NothingSelected,
        Exit::Interrupted,
        Exit::Pass,
    ];

    /// All of them, from the worst to the best.
    pub fn all() -> [Exit; 12] {
        Self::WORST_FIRST
    }

    pub fn code(self) -> u8 {
        self as u8
    }

    /// In a sentence, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Pass => "every property held in every run",
            Exit::Failed => {
                "streamproof itself failed: a bug in it, a results store that it cannot write, a worker that cannot start, a \
                 shard that is missing"
            }
            Exit::Usage => {
                "the command line, a settings or job file, a plan or a data directory is wrong; nothing was run"
            }
            Exit::NothingSelected => "the command was right and selected nothing",
            Exit::Unsafe => "a safety property was violated",
            Exit::NotLive => "after the faults stopped, the system did not converge within the plan's bound",
            Exit::Panicked => "a node of the system panicked",
            Exit::NotDeterministic => "the same plan ran twice and differed",
            Exit::Inconclusive => "something could not be decided, and nothing failed",
            Exit::NotReached => "rare states that the run had to reach were not reached",
            Exit::Blind => "a canary or a planted bug was not caught: the harness is blind",
            Exit::Interrupted => "interrupted, and nothing had failed by then",
        }
    }

    /// The worse of two outcomes.
    pub fn worst(self, other: Exit) -> Exit {
        let rank = |exit| Exit::WORST_FIRST.iter().position(|e| *e == exit);
        if rank(other) < rank(self) { other } else { self }
    }

    pub fn of(verdict: Verdict) -> Exit {
        match verdict {
            Verdict::Pass => Exit::Pass,
            Verdict::Unsafe => Exit::Unsafe,
            Verdict::NotLive => Exit::NotLive,
            Verdict::Panicked => Exit::Panicked,
            Verdict::NotDeterministic => Exit::NotDeterministic,
            Verdict::Inconclusive => Exit::Inconclusive,
            Verdict::HarnessFailed => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_outcome_wins() {
        let order = [Exit::Blind, Exit::NotDeterministic, Exit::Unsafe, Exit::Panicked, Exit::NotLive];
        let order = order.into_iter().chain([Exit::Inconclusive, Exit::NotReached, Exit::Pass]);
        let codes: Vec<u8> = order.clone().map(Exit::code).collect();
        assert_eq!(codes, [16, 13, 10, 12, 11, 14, 15, 0]);
        let order: Vec<Exit> = order.collect();
        for (i, worse) in order.iter().enumerate() {
            for better in &order[i..] {
                assert_eq!(worse.worst(*better), *worse);
                assert_eq!(better.worst(*worse), *worse);
            }
        }
        assert_eq!(Exit::Interrupted.worst(Exit::Pass), Exit::Interrupted);
        assert_eq!(Exit::Interrupted.worst(Exit::Unsafe), Exit::Unsafe, "an interrupt never hides a failure");
    }
}
