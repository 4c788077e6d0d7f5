//! A sequential generator: ChaCha8 keyed by (seed, concern, ids).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// A deterministic generator. Two streams with different coordinates are independent.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

/// The stream of `concern` (and `ids` within it) under `seed`.
pub fn stream(seed: u64, concern: &str, ids: &[u64]) -> Rng {
    Rng(ChaCha8Rng::from_seed(crate::draw::key(seed, concern, ids)))
}

impl Rng {
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `low..=high`. Panics if `low > high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty range {low}..={high}");
        let Some(span) = (high - low).checked_add(1) else { return self.u64() };
        // Lemire's method with rejection: exact, and the same on every platform.
        let threshold = span.wrapping_neg() % span;
        loop {
            let wide = u128::from(self.u64()) * u128::from(span);
            if (wide as u64) >= threshold {
                return low + (wide >> 64) as u64;
            }
        }
    }

    pub fn range_i64(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high, "empty range {low}..={high}");
        low.wrapping_add(self.range(0, high.wrapping_sub(low) as u64) as i64)
    }

    /// An index below `len`. Panics if `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.range(0, len as u64 - 1) as usize
    }

    /// True with `numerator` chances in `denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.range(1, denominator) <= numerator
    }

    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Fisher-Yates, from the last element down.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_coordinates_same_stream() {
        let mut a = stream(7, "net", &[1, 2]);
        let mut b = stream(7, "net", &[1, 2]);
        assert_eq!((a.u64(), a.u64()), (b.u64(), b.u64()));
    }

    #[test]
    fn coordinates_do_not_run_together() {
        assert_ne!(stream(7, "net", &[1, 2]).u64(), stream(7, "net", &[1, 2, 0]).u64());
        assert_ne!(stream(7, "ab", &[]).u64(), stream(7, "a", &[u64::from(b'b')]).u64());
        assert_ne!(stream(7, "net", &[1]).u64(), stream(8, "net", &[1]).u64());
    }

    #[test]
    fn range_covers_both_ends() {
        let mut rng = stream(1, "range", &[]);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|_| rng.range(3, 6)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(rng.range(9, 9), 9);
        let _ = rng.range(0, u64::MAX);
        assert_eq!(rng.range_i64(i64::MIN, i64::MIN), i64::MIN);
    }

    /// A stored plan means the same for ever: if this changes, plans do.
    #[test]
    fn golden() {
        let mut rng = stream(0, "golden", &[]);
        let mut items: Vec<u32> = (0..8).collect();
        rng.shuffle(&mut items);
        let got = (rng.range(0, 999_999), rng.u64(), items);
        assert_eq!(got, (76_392, 10_444_455_489_175_343_965, vec![3, 1, 7, 5, 0, 6, 2, 4]));
    }
}
