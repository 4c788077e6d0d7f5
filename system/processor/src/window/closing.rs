//! The closing point c of a window (rule 10): it fires on time when W >= c.

use std::fmt::Debug;

use super::Window;
use crate::watermark::Watermark;

pub trait ClosingPoint: Debug {
    fn of(&self, window: Window) -> Watermark;
}

/// Aligned windows: c = e - 1, the last millisecond inside.
#[derive(Clone, Copy, Debug)]
pub struct LastMillisecond;

impl ClosingPoint for LastMillisecond {
    fn of(&self, window: Window) -> Watermark {
        Watermark::from_ms(window.end - 1)
    }
}
