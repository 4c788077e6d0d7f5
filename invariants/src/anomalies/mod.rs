//! Jepsen's Kafka anomaly classes over client histories, by their names.
//!
//! | anomaly | what it is | allowed |
//! |--|--|--|
//! | `lost-write` | acknowledged or read, and not in the final log | never |
//! | `duplicate` | one record at two offsets | producers without idempotence |
//! | `unseen` | acknowledged, and polled by nobody in the end | partitions that nobody follows to the end |
//! | `inconsistent-offsets` | two sights of one offset are two records | never |
//! | `G1a` | an aborted or failed record is read | at `read_uncommitted`, which shows them on purpose |
//! | `precommitted-read` | a transaction reads its own record | at `read_uncommitted` |
//! | `poll-skip` | a consumer passes over a record, from poll to poll | over an assign, subscribe or rebalance: the position is set anew |
//! | `nonmonotonic-poll` | a consumer goes back, from poll to poll | the same |
//! | `int-poll-skip`, `int-nonmonotonic-poll` | the same within a transaction or a poll | over a rebalance in the middle of it |
//! | `nonmonotonic-send` | a producer's offsets fall, from operation to operation | producers without idempotence |
//! | `int-nonmonotonic-send` | the same within a transaction | producers without idempotence |
//! | `int-send-skip` | another's record lies between two of one transaction | always: Kafka's transactions do not isolate writes |
//! | `G0` | a circle of writes before writes | always, for the same reason |
//! | `G1c` | a circle of reads of what another wrote | with a write-write edge in it, for the same reason |
//! | `G-single`, `G2` | a circle with one, or more, reads that missed a write | always: polls are no part of what a transaction commits |
//!
//! What is always allowed has no property; [`Census`] counts it. Definitions: Jepsen's `jepsen.tests.kafka` and its reports
//! on Redpanda 21.10.1 and Bufstream 0.1.0, Elle (Kingsbury and Alvaro, VLDB 2020), Adya's thesis (1999). Other than there,
//! the order of a partition is not inferred from polls but read in the end, which also resolves unknown operations.

pub(crate) mod aborted_read;
pub(crate) mod analysis;
pub(crate) mod cycles;
pub(crate) mod duplicate;
pub(crate) mod inconsistent_offsets;
pub(crate) mod int_nonmonotonic_poll;
pub(crate) mod int_nonmonotonic_send;
pub(crate) mod int_poll_skip;
pub(crate) mod lost_write;
pub(crate) mod nonmonotonic_poll;
pub(crate) mod nonmonotonic_send;
pub(crate) mod poll_skip;
pub(crate) mod precommitted_read;
mod scc;
pub(crate) mod unseen;

pub(crate) use analysis::Analysis;
pub use cycles::Census;

use crate::Context;

/// Counts what is allowed too: circles, and transactions' sends with others' records between them (`int-send-skip`).
pub fn census(context: &Context<'_>) -> (Census, usize) {
    let skips = context.analysis().sends().iter().filter(|send| send.internal && send.between > 0).count();
    (cycles::census(context), skips)
}
