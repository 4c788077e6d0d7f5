//! Windows: one machine, and the four things that tell one kind of window from another, each in a file of its own.
//!
//! | input of the machine | tumbling |
//! |--|--|
//! | [`Assigner`]: event time to windows | [`Tumbling`] |
//! | [`ClosingPoint`]: when W completes a window | [`LastMillisecond`] |
//! | [`Trigger`]: further panes and their names | [`Accumulating`] |
//! | [`Merge`]: which windows flow together | [`Apart`] |

mod aggregate;
mod assigner;
mod closing;
mod machine;
mod merge;
mod row;
mod trigger;

pub use aggregate::Accumulator;
pub use assigner::{Assigner, Tumbling};
pub use closing::{ClosingPoint, LastMillisecond};
pub use machine::{Action, Operator, WindowMachine};
pub use merge::{Apart, Merge, Placement};
pub use row::{Kind, Row};
pub use trigger::{Accumulating, Trigger};

/// `[start, end)`, milliseconds (rule 9).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}
