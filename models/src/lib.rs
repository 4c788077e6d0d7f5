//! What a job means, derived from the semantics page alone: the job file ([`spec`]), the decoding of its input, the
//! batch answer and the replay of a run from its own decisions. Pure: no clock, no chance, no I/O, and no arithmetic
//! shared with `system/`, so that agreement between the two says something.

pub mod row;
pub mod spec;
pub mod time;

pub use spec::JobSpec;
pub use time::Watermark;
