//! A node's clocks as functions of the world's time: a monotonic one that runs at a rate of its own, and a wall clock
//! that is the monotonic one plus an offset.

/// Clocks of one machine. A change of rate keeps the reading continuous.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Where the present rate began, in the world's time and in the node's.
    base_world: u64,
    base_node: u64,
    ppm: i64,
    /// Wall clock minus monotonic clock, in nanoseconds.
    wall_offset: i128,
}

const MILLION: i128 = 1_000_000;

impl Clock {
    /// `origin`: the monotonic reading at world time 0, in nanoseconds; `wall_ms`: the wall clock then.
    pub(crate) fn new(origin: u64, wall_ms: i64) -> Self {
        let wall_offset = i128::from(wall_ms) * MILLION - i128::from(origin);
        Self { base_world: 0, base_node: origin, ppm: 0, wall_offset }
    }

    /// The monotonic clock at `world`, in nanoseconds.
    pub(crate) fn node_time(&self, world: u64) -> u64 {
        let passed = i128::from(world.saturating_sub(self.base_world));
        self.base_node.saturating_add(if self.ppm == 0 {
            passed as u64
        } else {
            u64::try_from(passed * (MILLION + i128::from(self.ppm)) / MILLION).unwrap_or(u64::MAX)
        })
    }

    /// The first moment of the world at which the monotonic clock reads at least `node`.
    pub(crate) fn world_time(&self, node: u64) -> u64 {
        let ahead = i128::from(node.saturating_sub(self.base_node));
        let rate = MILLION + i128::from(self.ppm);
        let passed = if self.ppm == 0 { ahead } else { (ahead * MILLION + rate - 1) / rate };
        self.base_world.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    pub(crate) fn wall_ms(&self, world: u64) -> i64 {
        let wall = i128::from(self.node_time(world)) + self.wall_offset;
        i64::try_from(wall.div_euclid(MILLION)).unwrap_or(if wall < 0 { i64::MIN } else { i64::MAX })
    }

    /// Runs `ppm` millionths fast (or, negative, slow) from `world` on.
    pub(crate) fn set_drift(&mut self, world: u64, ppm: i64) {
        assert!((-900_000..=9_000_000).contains(&ppm), "drift of {ppm} ppm");
        self.base_node = self.node_time(world);
        self.base_world = world;
        self.ppm = ppm;
    }

    /// Moves the wall clock alone.
    pub(crate) fn step_wall(&mut self, nanos: i128) {
        self.wall_offset += nanos;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drift_keeps_the_reading_and_a_step_moves_the_wall_alone() {
        let mut clock = Clock::new(500, 1_000);
        assert_eq!((clock.node_time(0), clock.wall_ms(0)), (500, 1_000));
        clock.set_drift(1_000_000, 50_000);
        assert_eq!(clock.node_time(1_000_000), 1_000_500);
        assert_eq!(clock.node_time(2_000_000), 2_050_500);
        clock.step_wall(-3_600_000_000_000);
        assert_eq!(clock.node_time(2_000_000), 2_050_500);
        assert_eq!(clock.wall_ms(2_000_000), 1_002 - 3_600_000);
    }

    proptest! {
        #[test]
        fn a_wait_ends_neither_early_nor_late(ppm in -900_000i64..=9_000_000, at in 0u64..1 << 50, wait in 0u64..1 << 45) {
            let mut clock = Clock::new(77, 0);
            clock.set_drift(at, ppm);
            let deadline = clock.node_time(at) + wait;
            let world = clock.world_time(deadline);
            prop_assert!(clock.node_time(world) >= deadline);
            prop_assert!(world == at || clock.node_time(world - 1) < deadline);
        }
    }
}
