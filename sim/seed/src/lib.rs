//! Chance as data. Two forms and nothing else: [`stream`], a generator of its own for each concern, and [`draw`], a
//! number that depends only on its coordinates. Neither shares state, so dropping one fault or one message leaves
//! every other draw as it was: that is what makes shrinking work.
//!
//! Ranges and shuffles are derived here and not by `rand`, whose algorithms may change between versions; a stored
//! plan must mean the same for ever.

mod draw;
mod rng;

pub use draw::{Draw, draw};
pub use rng::{Rng, stream};
