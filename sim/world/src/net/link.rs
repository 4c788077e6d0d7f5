//! One direction between two machines: its law, and what stands in its way.

use std::time::Duration;

use crate::FaultId;
use crate::time::nanos;

/// How one direction of a link treats segments. All draws are at (link, connection, segment).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkLaw {
    /// Uniform between these two.
    pub latency_min: Duration,
    pub latency_max: Duration,
    /// So many segments in a million take up to `tail_max` instead.
    pub tail_ppm: u32,
    pub tail_max: Duration,
    /// Bytes a second, shared by the connections of the link; 0 is unlimited.
    pub bandwidth: u64,
    /// So many segments in a million are lost, and come after a retransmission time-out instead.
    pub loss_ppm: u32,
    /// The time-out doubles from the first to the second.
    pub rto_min: Duration,
    pub rto_max: Duration,
    /// So many reads and writes in a million take only a part of what they could.
    pub chop_ppm: u32,
}

impl LinkLaw {
    /// A local network: 0.2 to 1 ms, no loss.
    pub const LAN: Self = Self {
        latency_min: Duration::from_micros(200),
        latency_max: Duration::from_millis(1),
        tail_ppm: 0,
        tail_max: Duration::ZERO,
        bandwidth: 0,
        loss_ppm: 0,
        rto_min: Duration::from_millis(200),
        rto_max: Duration::from_secs(3),
        chop_ppm: 0,
    };

    /// From a node to itself: 20 to 60 µs.
    pub const LOOPBACK: Self =
        Self { latency_min: Duration::from_micros(20), latency_max: Duration::from_micros(60), ..Self::LAN };

    /// The same law with another latency.
    pub const fn latency(self, min: Duration, max: Duration) -> Self {
        Self { latency_min: min, latency_max: max, ..self }
    }

    pub(crate) fn check(&self) {
        assert!(self.latency_min <= self.latency_max, "latency from {:?} to {:?}", self.latency_min, self.latency_max);
        assert!(self.rto_min > Duration::ZERO && self.rto_min <= self.rto_max, "time-out of 0 or falling");
        for ppm in [self.tail_ppm, self.loss_ppm, self.chop_ppm] {
            assert!(ppm <= 1_000_000, "{ppm} in a million");
        }
        assert!(self.loss_ppm < 1_000_000, "a link that loses everything is a cut");
    }
}

/// What stands in the way of segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Block {
    /// Everything is lost, and sent again by the sender's retransmission timer.
    Cut,
    /// Everything is kept and comes at once when the block goes.
    Hold,
    /// Connection requests are lost: `connect` hangs.
    Hang,
    /// Connection requests are answered by a reset: refused.
    Refuse,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// Coordinate in draws, from the two names.
    pub(crate) key: u64,
    base: Law,
    overlays: Vec<(FaultId, Law)>,
    pub(crate) blocks: Vec<(FaultId, Block)>,
    /// When the last segment so far will have left, under a bandwidth.
    busy_until: u64,
    /// Connections opened in this direction so far.
    pub(crate) opened: u64,
}

/// A [`LinkLaw`] in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Law {
    latency: (u64, u64),
    tail: (u32, u64),
    bandwidth: u64,
    loss_ppm: u32,
    pub(crate) rto: (u64, u64),
    pub(crate) chop_ppm: u32,
}

impl From<LinkLaw> for Law {
    fn from(l: LinkLaw) -> Self {
        l.check();
        Self {
            latency: (nanos(l.latency_min), nanos(l.latency_max)),
            tail: (l.tail_ppm, nanos(l.tail_max)),
            bandwidth: l.bandwidth,
            loss_ppm: l.loss_ppm,
            rto: (nanos(l.rto_min), nanos(l.rto_max)),
            chop_ppm: l.chop_ppm,
        }
    }
}

impl Law {
    /// The `attempt`th wait for a retransmission, from 0.
    pub(crate) fn rto(&self, attempt: u32) -> u64 {
        self.rto.0.saturating_mul(1 << attempt.min(20)).min(self.rto.1)
    }
}

/// When a segment arrives, and whether the way there was its first.
pub(crate) struct Passage {
    pub(crate) at: u64,
    pub(crate) lost: u32,
}

impl Link {
    pub(crate) fn new(key: u64, law: LinkLaw) -> Self {
        Self { key, base: law.into(), overlays: Vec::new(), blocks: Vec::new(), busy_until: 0, opened: 0 }
    }

    pub(crate) fn law(&self) -> &Law {
        self.overlays.last().map_or(&self.base, |(_, law)| law)
    }

    /// The fault whose law is in force.
    pub(crate) fn disturbed_by(&self) -> Option<FaultId> {
        self.overlays.last().map(|o| o.0)
    }

    pub(crate) fn set_base(&mut self, law: LinkLaw) {
        self.base = law.into();
    }

    pub(crate) fn overlay(&mut self, fault: FaultId, law: LinkLaw) {
        self.overlays.push((fault, law.into()));
    }

    /// True if the fault was on this link.
    pub(crate) fn clear(&mut self, fault: FaultId) -> bool {
        let before = self.overlays.len() + self.blocks.len();
        self.overlays.retain(|o| o.0 != fault);
        self.blocks.retain(|b| b.0 != fault);
        before != self.overlays.len() + self.blocks.len()
    }

    /// The passage of the segment at `ids` (link, connection, direction and number) of `len` bytes.
    pub(crate) fn passage(&mut self, world_seed: u64, now: u64, ids: [u64; 3], len: usize) -> Passage {
        let law = *self.law();
        let mut at = now;
        if let Some(busy) = (len as u64).saturating_mul(1_000_000_000).checked_div(law.bandwidth) {
            self.busy_until = self.busy_until.max(now) + busy;
            at = self.busy_until;
        }
        let draw = seed::draw(world_seed, "latency", &ids);
        let (low, mut high) = law.latency;
        if law.tail.0 > 0 && seed::draw(world_seed, "tail", &ids).chance(u64::from(law.tail.0), 1_000_000) {
            high = high.max(law.tail.1);
        }
        at += draw.range(low, high);
        let mut lost = 0;
        while law.loss_ppm > 0
            && lost < 12
            && seed::draw(world_seed, "loss", &[ids[0], ids[1], ids[2], u64::from(lost)])
                .chance(u64::from(law.loss_ppm), 1_000_000)
        {
            at += law.rto(lost);
            lost += 1;
        }
        Passage { at, lost }
    }
}
