//! Barrier alignment of a task over all channels of all its gates.
//!
//! ```text
//!   channel 0  r r B │ r r      a channel that showed barrier n is not read on until every other has shown it:
//!   channel 1  r r r r B │ r    the snapshot then holds exactly what came before the barriers (FLINK-17568)
//! ```
//! All gates count (FLINK-18139 looked at the first one's channels only), and ended channels still carry barriers.

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("barrier {found} on channel {channel}, where {expected}")]
pub struct UnexpectedBarrier {
    pub channel: usize,
    pub found: u64,
    pub expected: String,
}

#[derive(Clone, Debug)]
pub struct Aligner {
    /// By channel, the gates one after another.
    shown: Vec<bool>,
    aligning: Option<u64>,
    last: u64,
}

impl Aligner {
    /// `gates`: the number of channels of each. `last`: the barrier the task was restored from, 0 for none.
    pub fn new(gates: &[usize], last: u64) -> Self {
        let channels = gates.iter().sum();
        assert!(channels > 0, "a task without input channels");
        Self { shown: vec![false; channels], aligning: None, last }
    }

    /// Whether the channel may be read.
    pub fn is_open(&self, channel: usize) -> bool {
        !self.shown[channel]
    }

    /// A channel shows barrier `n`. Returns `n` once every channel has: the moment of the snapshot, after which all
    /// channels are open again.
    pub fn barrier(&mut self, channel: usize, n: u64) -> Result<Option<u64>, UnexpectedBarrier> {
        let expected = self.aligning.unwrap_or(self.last + 1);
        if n != expected || self.shown[channel] {
            let expected = format!("{expected} was expected once");
            return Err(UnexpectedBarrier { channel, found: n, expected });
        }
        self.aligning = Some(n);
        self.shown[channel] = true;
        if self.shown.iter().any(|shown| !shown) {
            return Ok(None);
        }
        self.shown.fill(false);
        self.aligning = None;
        self.last = n;
        Ok(Some(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_channels_of_all_gates_take_part() {
        let mut a = Aligner::new(&[1, 2], 4);
        assert_eq!(a.barrier(0, 5), Ok(None));
        assert!(!a.is_open(0) && a.is_open(1) && a.is_open(2));
        assert_eq!(a.barrier(2, 5), Ok(None));
        assert_eq!(a.barrier(1, 5), Ok(Some(5)));
        assert!((0..3).all(|c| a.is_open(c)));
        assert_eq!(a.barrier(1, 6), Ok(None));
    }

    #[test]
    fn skipped_repeated_and_old_barriers_are_errors() {
        assert!(Aligner::new(&[2], 0).barrier(0, 2).is_err());
        let mut a = Aligner::new(&[2], 0);
        a.barrier(0, 1).unwrap();
        assert!(a.barrier(0, 1).is_err());
        assert!(a.barrier(1, 2).is_err());
        a.barrier(1, 1).unwrap();
        assert!(a.barrier(1, 1).is_err());
    }
}
