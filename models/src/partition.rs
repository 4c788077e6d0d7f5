//! Where a key goes: Kafka's default partitioner, and the processor's key groups.

/// Kafka's murmur2, seed 0x9747b28c.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ (bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, b) in tail.iter().enumerate() {
            h ^= u32::from(*b) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition that Kafka's default partitioner gives a key (rule 24).
///
/// # Panics
/// If `partitions` is not positive.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition, not {partitions}");
    ((murmur2(key) & 0x7fff_ffff) % partitions as u32) as i32
}

/// The key group of a key, of `groups` (rule 7; the processor's own numbering, which its decision log uses). The
/// multiplication keeps groups apart from partitions, which are taken from the same hash.
///
/// # Panics
/// If `groups` is 0.
pub fn key_group(key: &[u8], groups: u32) -> u32 {
    (murmur2(key).wrapping_mul(0x9e37_79b1) >> 16) % groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka's own test vectors (UtilsTest.testMurmur2).
    #[test]
    fn kafkas_vectors() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn partitions_are_in_range() {
        assert_eq!(partition_of(b"foobar", 1), 0);
        assert!((0..100).all(|i| (0..7).contains(&partition_of(format!("k{i}").as_bytes(), 7))));
    }
}
