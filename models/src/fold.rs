//! Aggregates (rules 17, 18): a commutative, associative fold.

use crate::record::Event;
use crate::spec::Function;

/// What a window has taken in. `count` rises with each record, the rest with each value that is not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fold {
    pub count: u64,
    sum: i128,
    range: Option<(i64, i64)>,
    digest: u64,
}

impl Fold {
    pub fn add(&mut self, partition: i32, offset: i64, event: &Event) {
        self.count += 1;
        self.digest = self.digest.wrapping_add(lineage(partition, offset));
        if let Some(value) = event.value {
            self.sum += i128::from(value);
            let (min, max) = self.range.unwrap_or((value, value));
            self.range = Some((min.min(value), max.max(value)));
        }
    }

    /// The value of a function; `None` for sum, min and max when every value was null.
    pub fn value(&self, function: Function) -> Option<i128> {
        match function {
            Function::Count => Some(i128::from(self.count)),
            Function::Sum => self.range.map(|_| self.sum),
            Function::Min => self.range.map(|(min, _)| i128::from(min)),
            Function::Max => self.range.map(|(_, max)| i128::from(max)),
            Function::Digest => Some(i128::from(self.digest)),
        }
    }

    pub fn values(&self, functions: &[Function]) -> Vec<Option<i128>> {
        functions.iter().map(|f| self.value(*f)).collect()
    }
}

/// A record's term of `digest`: `mix(mix(partition) + offset)` in wrapping `u64`, where `mix` is the output function of
/// SplitMix64 (Steele, Lea, Flood 2014).
pub fn lineage(partition: i32, offset: i64) -> u64 {
    mix(mix(partition as u64).wrapping_add(offset as u64))
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(value: Option<i64>) -> Event {
        Event { key: "k".into(), event_time: 0, value }
    }

    #[test]
    fn nulls_count_and_nothing_else() {
        let mut fold = Fold::default();
        fold.add(0, 0, &event(None));
        assert_eq!(fold.values(&[Function::Count, Function::Sum, Function::Min]), [Some(1), None, None]);
        fold.add(0, 1, &event(Some(-4)));
        assert_eq!(fold.values(&[Function::Count, Function::Sum, Function::Max]), [Some(2), Some(-4), Some(-4)]);
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut fold = Fold::default();
        fold.add(0, 0, &event(Some(i64::MAX)));
        fold.add(0, 1, &event(Some(i64::MAX)));
        assert_eq!(fold.value(Function::Sum), Some(2 * i128::from(i64::MAX)));
    }

    /// SplitMix64's first output from state 0 is a published constant.
    #[test]
    fn lineage_is_splitmix64() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(lineage(0, 0), mix(0xe220_a839_7b1d_cdaf));
        assert_ne!(lineage(0, 1), lineage(1, 0));
    }
}
