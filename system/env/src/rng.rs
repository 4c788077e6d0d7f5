//! Chance for the system: a stream of its own for each purpose, never a shared generator.

/// A random stream for `purpose`, no two alike. In the simulation it depends on (world seed, node, incarnation, purpose) and
/// on how many were begun for the purpose before, so one purpose never disturbs another; in the real world it comes from the
/// operating system's entropy.
pub fn stream(purpose: &'static str) -> seed::Rng {
    if world::port::active() {
        return world::port::rng(purpose);
    }
    let state = std::hash::RandomState::new();
    let entropy = std::hash::BuildHasher::hash_one(&state, purpose);
    seed::stream(entropy, purpose, &[])
}
