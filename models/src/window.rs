//! Windows (rules 9, 10, 13), kept apart from the arithmetic of `system/`.

use crate::spec::{WindowKind, WindowSpec};
use crate::time::Watermark;

/// [start, end), ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

/// Rule 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    OnTime,
    Behind,
    Late,
}

impl Window {
    /// c of rule 10.
    pub fn closing_point(self) -> i64 {
        self.end - 1
    }

    /// Whether the watermark has closed it (rule 12).
    pub fn closed_at(self, w: Watermark) -> bool {
        w.ms() >= self.closing_point()
    }
}

impl WindowSpec {
    /// The window of an event time.
    pub fn assign(&self, event_time: i64) -> Window {
        let WindowKind::Tumbling { size_ms, offset_ms } = self.kind;
        let start = event_time - (event_time - offset_ms).rem_euclid(size_ms);
        Window { start, end: start + size_ms }
    }

    /// Rule 13, for a record of this event time and its window, at watermark `w`.
    pub fn classify(&self, event_time: i64, window: Window, w: Watermark) -> Class {
        if window.closing_point() + self.allowed_lateness_ms <= w.ms() {
            Class::Late
        } else if event_time > w.ms() {
            Class::OnTime
        } else {
            Class::Behind
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Accumulation;

    fn tumbling(size_ms: i64, offset_ms: i64, allowed_lateness_ms: i64) -> WindowSpec {
        let kind = WindowKind::Tumbling { size_ms, offset_ms };
        WindowSpec { kind, allowed_lateness_ms, accumulation: Accumulation::Accumulating }
    }

    #[test]
    fn tumbling_windows_are_floored() {
        let spec = tumbling(10, 0, 0);
        for (t, start) in [(0, 0), (9, 0), (10, 10), (-1, -10), (-10, -10), (-11, -20)] {
            assert_eq!(spec.assign(t), Window { start, end: start + 10 }, "T = {t}");
        }
        for (offset, t, start) in [(3, 2, -7), (3, 3, 3), (-3, 6, -3), (-3, 7, 7)] {
            assert_eq!(tumbling(10, offset, 0).assign(t).start, start, "T = {t}, offset {offset}");
        }
    }

    #[test]
    fn classes_have_sharp_edges() {
        let spec = tumbling(10, 0, 5);
        let window = spec.assign(3);
        for (w, class) in [(2, Class::OnTime), (3, Class::Behind), (13, Class::Behind), (14, Class::Late)] {
            assert_eq!(spec.classify(3, window, Watermark(w)), class, "W = {w}");
        }
        assert_eq!(spec.classify(3, window, Watermark::MIN), Class::OnTime);
        assert_eq!(spec.classify(3, window, Watermark::MAX), Class::Late);
    }
}
