//! Replication: which copies this broker has open, which it leads and which it follows, and the fetching.
//!
//! | file | one line |
//! |--|--|
//! | `replicas` | makes the copies here what the metadata image says they are |
//! | `fetcher` | one task a leader, fetches for all the partitions followed there |
//! | `checkpoint` | the high watermarks that a next life starts from |

mod checkpoint;
mod fetcher;
mod replicas;

pub(crate) use replicas::Replicas;
