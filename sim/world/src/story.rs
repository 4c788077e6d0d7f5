//! What a picture of a run needs and W does not hold: who lived when, and which bytes went from whom to whom.
//!
//! Lives are always kept, messages only when [`crate::Config::keep_story`] is set; it draws nothing and changes nothing. The
//! number of messages is bounded: those past [`MAX_MESSAGES`] are counted.

use crate::SimTime;
use crate::kernel::Ctx;

/// Messages kept.
pub const MAX_MESSAGES: usize = 50_000;

/// Data that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    pub sent: SimTime,
    pub arrived: SimTime,
    pub from: u32,
    pub to: u32,
    pub bytes: u32,
}

/// A turn in the life of a node: `crash`, `power-loss`, `exit`, `restart`, `pause`, `resume`, `crash-point`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    pub at: SimTime,
    pub node: u32,
    pub incarnation: u32,
    pub kind: &'static str,
}

impl Life {
    /// Whether the incarnation does nothing any more.
    pub fn is_death(&self) -> bool {
        matches!(self.kind, "crash" | "power-loss" | "exit")
    }
}

/// In order of time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Story {
    pub lives: Vec<Life>,
    /// In order of arrival.
    pub messages: Vec<Message>,
    /// Messages that arrived after so many were kept.
    pub messages_left_out: u64,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    story: Story,
    keep_messages: bool,
}

impl Recorder {
    pub(crate) fn new(keep_messages: bool) -> Self {
        Self { story: Story::default(), keep_messages }
    }

    pub(crate) fn life(&mut self, now: u64, ctx: Ctx, kind: &'static str) {
        let (node, incarnation) = (ctx.node, ctx.incarnation);
        self.story.lives.push(Life { at: SimTime::from_nanos(now), node, incarnation, kind });
    }

    pub(crate) fn message(&mut self, sent: u64, now: u64, from: u32, to: u32, bytes: usize) {
        // What a node tells itself is no arrow.
        if !self.keep_messages || from == to {
            return;
        }
        let story = &mut self.story;
        if story.messages.len() == MAX_MESSAGES {
            story.messages_left_out += 1;
            return;
        }
        let (sent, arrived) = (SimTime::from_nanos(sent), SimTime::from_nanos(now));
        story.messages.push(Message { sent, arrived, from, to, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
    }

    pub(crate) fn take(&mut self) -> Story {
        std::mem::take(&mut self.story)
    }
}
