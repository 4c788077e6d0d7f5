//! A split's own W (rule 2): bounded out-of-orderness.

use super::Watermark;

/// W after offset o = the greatest event time of the split's valid records up to o, minus the bound, minus 1.
#[derive(Clone, Debug)]
pub struct Generator {
    out_of_orderness_ms: i64,
    watermark: Watermark,
}

impl Generator {
    /// `restored` is the split's W in the checkpoint, MIN for a new split: the generator's whole state.
    pub fn new(out_of_orderness_ms: i64, restored: Watermark) -> Self {
        assert!(out_of_orderness_ms >= 0, "negative out-of-orderness bound {out_of_orderness_ms}");
        Self { out_of_orderness_ms, watermark: restored }
    }

    /// Takes one valid record's event time, within [-2^53, 2^53]: the arithmetic below cannot leave `i64`, and it
    /// never starts from MIN (FLINK-13429: MIN minus a delay is a huge W).
    pub fn observe(&mut self, event_time_ms: i64) {
        let candidate = Watermark::from_ms(event_time_ms - self.out_of_orderness_ms - 1);
        self.watermark = self.watermark.max(candidate);
    }

    pub fn watermark(&self) -> Watermark {
        self.watermark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_min_before_the_first_record_and_never_falls() {
        let mut g = Generator::new(10, Watermark::MIN);
        assert_eq!(g.watermark(), Watermark::MIN);
        g.observe(-5);
        assert_eq!(g.watermark(), Watermark::from_ms(-16));
        g.observe(-100);
        assert_eq!(g.watermark(), Watermark::from_ms(-16));
        g.observe(100);
        assert_eq!(g.watermark(), Watermark::from_ms(89));
    }

    #[test]
    fn is_restored_from_its_watermark_alone() {
        let mut a = Generator::new(7, Watermark::MIN);
        a.observe(50);
        let mut b = Generator::new(7, a.watermark());
        a.observe(40);
        b.observe(40);
        assert_eq!(a.watermark(), b.watermark());
        a.observe(60);
        b.observe(60);
        assert_eq!(a.watermark(), b.watermark());
    }
}
