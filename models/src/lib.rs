//! What a job means, derived from the semantics page alone: the job file ([`spec`]), the decoding of its input, the
//! batch answer and the replay of a run from its own decisions. Pure: no clock, no chance, no I/O, and no arithmetic
//! shared with `system/`, so that agreement between the two says something.

mod batch;
pub mod decision;
pub mod events;
pub mod fold;
pub mod json;
pub mod partition;
pub mod record;
pub mod replay;
pub mod row;
pub mod spec;
pub mod time;
pub mod vector;
pub mod window;

pub use batch::batch;
pub use record::Event;
pub use row::Row;
pub use spec::JobSpec;
pub use time::Watermark;
