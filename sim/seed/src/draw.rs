//! A counter-based draw: a hash of its coordinates, with no state.

/// A number determined by its coordinates, and ways to read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draw(u64);

/// The draw of `concern` at `ids` under `seed`.
pub fn draw(seed: u64, concern: &str, ids: &[u64]) -> Draw {
    let mut state = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
    for chunk in concern.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state.rotate_left(23) ^ u64::from_le_bytes(word));
    }
    state = mix(state.rotate_left(23) ^ ((concern.len() as u64) << 32 | ids.len() as u64));
    for &id in ids {
        state = mix(state.rotate_left(23) ^ id.wrapping_mul(0xd6e8_feb8_6659_fd93));
    }
    Draw(mix(state))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection with full avalanche.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A 256-bit key for a stream at these coordinates.
pub(crate) fn key(seed: u64, concern: &str, ids: &[u64]) -> [u8; 32] {
    let mut coordinates = ids.to_vec();
    let mut key = [0; 32];
    for (n, word) in key.chunks_exact_mut(8).enumerate() {
        coordinates.push(n as u64);
        word.copy_from_slice(&draw(seed, concern, &coordinates).0.to_le_bytes());
        coordinates.pop();
    }
    key
}

impl Draw {
    pub fn u64(self) -> u64 {
        self.0
    }

    /// In `low..=high`, with a bias below 2^-32 for spans below 2^32.
    pub fn range(self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty range {low}..={high}");
        match (high - low).checked_add(1) {
            Some(span) => low + ((u128::from(self.0) * u128::from(span)) >> 64) as u64,
            None => self.0,
        }
    }

    /// True with `numerator` chances in `denominator`.
    pub fn chance(self, numerator: u64, denominator: u64) -> bool {
        self.range(1, denominator) <= numerator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_every_coordinate() {
        let base = draw(1, "loss", &[1, 2, 3]);
        assert_eq!(base, draw(1, "loss", &[1, 2, 3]));
        for other in [
            draw(2, "loss", &[1, 2, 3]),
            draw(1, "lost", &[1, 2, 3]),
            draw(1, "loss", &[1, 2, 4]),
            draw(1, "loss", &[1, 3, 2]),
            draw(1, "loss", &[1, 2]),
            draw(1, "loss\0", &[1, 2, 3]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn chance_is_about_right() {
        let hits = (0..10_000).filter(|&n| draw(5, "chance", &[n]).chance(1, 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits} of 10000 at 1 in 4");
    }
}
