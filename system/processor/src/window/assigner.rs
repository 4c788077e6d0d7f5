//! Which windows an event time belongs to (rule 9).

use std::fmt::Debug;

use super::Window;

pub trait Assigner: Debug {
    /// The windows of `event_time_ms`, in order of start. None of them: the record is unassigned.
    fn assign(&self, event_time_ms: i64) -> Vec<Window>;
}

#[derive(Clone, Copy, Debug)]
pub struct Tumbling {
    pub size_ms: i64,
    pub offset_ms: i64,
}

impl Assigner for Tumbling {
    fn assign(&self, event_time_ms: i64) -> Vec<Window> {
        // The remainder of floored division: `%` would put a time before the offset into the window after it
        // (FLINK-26334).
        let start = event_time_ms - (event_time_ms - self.offset_ms).rem_euclid(self.size_ms);
        vec![Window { start, end: start + self.size_ms }]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn negative_times_and_offsets() {
        let at = |t, size_ms, offset_ms| Tumbling { size_ms, offset_ms }.assign(t)[0].start;
        assert_eq!(at(0, 10, 0), 0);
        assert_eq!(at(-1, 10, 0), -10);
        assert_eq!(at(-10, 10, 0), -10);
        assert_eq!(at(2, 10, 3), -7);
        assert_eq!(at(3, 10, 3), 3);
        assert_eq!(at(0, 10, -25), -5);
    }

    proptest! {
        #[test]
        fn every_time_is_inside_its_window_and_windows_tile(
            t in -(1i64 << 53)..=(1i64 << 53), size_ms in 1i64..(1 << 43), offset_ms in -(1i64 << 42)..(1 << 42),
        ) {
            let w = Tumbling { size_ms, offset_ms }.assign(t)[0];
            prop_assert!(w.start <= t && t < w.end);
            prop_assert_eq!(w.end - w.start, size_ms);
            prop_assert_eq!((i128::from(w.start) - i128::from(offset_ms)).rem_euclid(i128::from(size_ms)), 0);
        }
    }
}
