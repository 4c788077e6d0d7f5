//! From the world's story to what reports draw.

use reports::Scene;
use reports::scene::{Message, Turn};
use world::Story;

pub(super) fn of(story: &Story) -> Scene {
    let turns = story.lives.iter().map(|life| Turn {
        at_ns: life.at.as_nanos(),
        node: life.node,
        incarnation: life.incarnation,
        kind: life.kind.to_owned(),
    });
    let messages = story.messages.iter().map(|m| Message {
        sent_ns: m.sent.as_nanos(),
        arrived_ns: m.arrived.as_nanos(),
        from: m.from,
        to: m.to,
        bytes: m.bytes,
    });
    Scene { turns: turns.collect(), messages: messages.collect(), messages_left_out: story.messages_left_out }
}
