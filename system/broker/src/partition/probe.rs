//! What a partition tells the harness.

use std::rc::Rc;

use log::Offset;

use super::TopicPartition;

/// One thing that happened to a partition of this broker.
#[derive(Debug, Hash, Clone, PartialEq, Eq)]
pub struct PartitionProbe {
    pub partition: Rc<TopicPartition>,
    pub event: PartitionEvent,
}

#[derive(Debug, Hash, Clone, PartialEq, Eq)]
pub enum PartitionEvent {
    /// Recovered from disk, up to `end`; `cut` bytes of a torn tail were removed. The first transaction that is open by
    /// what is known of producers begins at `first_open`, and `aborted` transactions are told to readers.
    Opened {
        log_start: Offset,
        end: Offset,
        cut: u64,
        first_open: Option<Offset>,
        aborted: usize,
    },
    /// Leads from now on.
    Led {
        leader_epoch: i32,
        end: Offset,
        high_watermark: Offset,
        last_stable_offset: Offset,
    },
    /// Follows from now on.
    Followed {
        leader_epoch: i32,
        leader: Option<i32>,
        end: Offset,
    },
    /// Batches of the leader, in the page cache.
    Replicated {
        base: Offset,
        last: Offset,
    },
    /// Records that the leader does not have were cut away.
    Truncated {
        from: Offset,
        to: Offset,
        /// What this replica knew before.
        high_watermark: Offset,
    },
    /// The controller is asked for this in-sync set.
    IsrAsked {
        leader_epoch: i32,
        isr: Vec<i32>,
    },
    /// The controller answers with this in-sync set.
    IsrAnswered {
        partition_epoch: i32,
        isr: Vec<i32>,
    },
    /// In the page cache.
    Appended {
        base: Offset,
        last: Offset,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        transactional: bool,
    },
    /// A transaction marker, in the page cache.
    Marker {
        offset: Offset,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
        coordinator_epoch: i32,
    },
    /// A marker was refused with this Kafka error code.
    MarkerRefused {
        error: i16,
        producer_id: i64,
        producer_epoch: i16,
    },
    /// A batch that is in the log already was sent again.
    Duplicate {
        base: Offset,
        last: Offset,
        producer_id: i64,
    },
    /// An append was refused with this Kafka error code.
    Refused {
        error: i16,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
    },
    /// The log begins at `offset` from now on.
    StartMoved {
        offset: Offset,
    },
    /// The segments of `[base, end)` were compacted into one.
    Cleaned {
        base: Offset,
        end: Offset,
        bytes_before: u64,
        bytes_after: u64,
    },
    /// Everything was given up for a log that begins at `offset`, as the leader's does.
    Reset {
        offset: Offset,
    },
    Rolled {
        base: Offset,
    },
    /// Everything below survives power loss.
    Flushed {
        offset: Offset,
    },
    /// Of the leader.
    HighWatermark {
        offset: Offset,
    },
    /// As far as a follower knows.
    FollowersHighWatermark {
        offset: Offset,
    },
    /// Of the leader.
    LastStableOffset {
        offset: Offset,
    },
    /// The log failed and the broker stops.
    Failed,
    Closed {
        end: Offset,
    },
}
