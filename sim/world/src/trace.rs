//! The trace hash W: a running hash over everything the world does. Two runs are the same run if and only if W is.
//! It holds no task id, address or host time, and recording more or less does not change it.

use crate::SimTime;
use crate::kernel::Ctx;

/// One event of the world, kept only when [`crate::Config::keep_trace`] is set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceEvent {
    pub at: SimTime,
    pub node: u32,
    pub incarnation: u32,
    pub kind: &'static str,
    /// What it happened to: a connection, a file.
    pub subject: u64,
    /// Size or hash of the content, as the kind has it.
    pub detail: u64,
}

impl std::fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, node, incarnation, kind, subject, detail } = self;
        write!(f, "{at} node {node}.{incarnation} {kind} {subject} {detail:#x}")
    }
}

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    count: u64,
    kept: Option<Vec<TraceEvent>>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: 0x5743, count: 0, kept: keep.then(Vec::new) }
    }

    pub(crate) fn note(&mut self, now: u64, ctx: Ctx, kind: &'static str, subject: u64, detail: u64) {
        let tag = kind_tag(kind);
        let mut h = self.hash;
        for word in [now, u64::from(ctx.node) << 32 | u64::from(ctx.incarnation), tag, subject, detail] {
            h = (h ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
            h ^= h >> 32;
        }
        self.hash = h;
        self.count += 1;
        if let Some(kept) = &mut self.kept {
            let (node, incarnation) = (ctx.node, ctx.incarnation);
            kept.push(TraceEvent { at: SimTime::from_nanos(now), node, incarnation, kind, subject, detail });
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn take(&mut self) -> Vec<TraceEvent> {
        self.kept.take().unwrap_or_default()
    }
}

fn kind_tag(kind: &'static str) -> u64 {
    let mut word = [0; 8];
    let bytes = kind.as_bytes();
    let n = bytes.len().min(8);
    word[..n].copy_from_slice(&bytes[..n]);
    u64::from_le_bytes(word) ^ ((bytes.len() as u64) << 56)
}

/// The hash of content, as it goes into W.
pub(crate) fn content(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_matter() {
        let ctx = Ctx { node: 1, incarnation: 1 };
        let run = |events: &[(&'static str, u64)]| {
            let mut t = Trace::new(false);
            for &(kind, detail) in events {
                t.note(5, ctx, kind, 7, detail);
            }
            t.hash()
        };
        assert_eq!(run(&[("data", 1), ("fin", 2)]), run(&[("data", 1), ("fin", 2)]));
        assert_ne!(run(&[("data", 1), ("fin", 2)]), run(&[("fin", 2), ("data", 1)]));
        assert_ne!(run(&[("data", 1)]), run(&[("data", 2)]));
        assert_ne!(run(&[("data", 1)]), run(&[("fin", 1)]));
    }
}
