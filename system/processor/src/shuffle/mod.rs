//! Channels between tasks: in memory on one worker, over TCP between two.
//!
//! ```text
//!   hello     JSON frame {generation, from, to} ─▶     ◀─ JSON frame accepted | refused
//!   message   u32 length · u8 version · u64 generation · u64 seq · u8 kind · content
//! ```
//! Guarantees: order, no gap, no repeat (`seq` counts from 0 on each channel), and nothing of another generation gets
//! through: an attempt's channel is taken once, by one connection of that generation. A channel holds a bounded number
//! of messages; a full one makes its sender wait, over TCP too. A broken channel fails its task, never skips.

mod message;
mod outbound;
mod server;

pub use message::Message;
pub use outbound::Outbound;
pub use server::Server;

use crate::control::{FrameError, Generation};

/// What a receiving task finds in a channel.
#[derive(Debug)]
pub enum Incoming {
    Message(Message),
    /// Nothing more will come; why.
    Broken(String),
}

/// A channel of one attempt: from a source task to a window task.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelId {
    pub generation: Generation,
    pub from: String,
    pub to: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Accepted,
    /// The attempt is not, or no longer, run here, or the channel is taken.
    Refused,
}

#[derive(Debug, thiserror::Error)]
pub enum ShuffleError {
    #[error("failed to connect: {0}")]
    Connect(env::io::Error),
    #[error("failed to connect in time")]
    Timeout,
    #[error("the other worker does not run generation {0}")]
    Refused(Generation),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the receiving task is gone")]
    Closed,
}
