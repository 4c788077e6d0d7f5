//! From keys to key groups to window tasks.
//!
//! Groups are fixed for the life of a job and are the unit of state, so that a later change of parallelism moves whole
//! groups. The hash is Kafka's murmur2, mixed once more: the partition is `murmur2 % partitions`, and without the mix
//! the keys of one partition would share a few groups only.

/// The hash of Kafka's default partitioner.
pub fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ (key.len() as u32);
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of `key` among `partitions`, as Kafka's default partitioner chooses it.
pub fn partition(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "{partitions} partitions");
    ((murmur2(key) & 0x7fff_ffff) % partitions.unsigned_abs()) as i32
}

pub fn key_group(key: &[u8], key_groups: u32) -> u32 {
    (murmur2(key).wrapping_mul(0x9E37_79B1) >> 16) % key_groups
}

/// The window task that owns `key_group`: contiguous ranges of nearly equal length.
pub fn window_task(key_group: u32, window_tasks: u32, key_groups: u32) -> u32 {
    (u64::from(key_group) * u64::from(window_tasks) / u64::from(key_groups)) as u32
}

/// The groups of one window task.
pub fn groups_of(task: u32, window_tasks: u32, key_groups: u32) -> Vec<u32> {
    (0..key_groups).filter(|kg| window_task(*kg, window_tasks, key_groups) == task).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_kafkas() {
        // org.apache.kafka.common.utils.UtilsTest#testMurmur2
        for (text, hash) in [
            ("21", -973_932_308_i32),
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
    fn every_group_has_one_task_and_every_task_a_group() {
        for tasks in 1..=7 {
            let mut all = Vec::new();
            for task in 0..tasks {
                let groups = groups_of(task, tasks, 128);
                assert!(!groups.is_empty());
                all.extend(groups);
            }
            assert_eq!(all, (0..128).collect::<Vec<_>>());
        }
    }
}
