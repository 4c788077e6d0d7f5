//! What a leader knows of the other replicas, and what follows from it: how far the high watermark may go, whom to take
//! out of the in-sync set and whom to take in.
//!
//! | rule | why |
//! |--|--|
//! | the high watermark waits for the *maximal* in-sync set: committed, and the one asked for | the controller may have committed either (KIP-497) |
//! | it does not move while the committed set is below `min.insync.replicas` | what is acknowledged must survive the eligible leader replicas (KIP-966, KAFKA-15583) |
//! | a member counts with what it fetched from in *this* leader epoch | an older position may be about to be truncated |
//! | a follower joins at or past the high watermark *and* the start of this leader epoch | it may still hold another leader's tail below (KAFKA-7128) |
//! | ... and only once its log begins no earlier than the leader's | it was not waited for while it was fenced, and may lead next (KIP-107) |
//! | ... and only with the broker epoch that the controller knows | a stale fetch of an earlier life proves nothing (KIP-903) |
//! | one change at a time; after an answer that says "you are behind" nothing is asked before the image has caught up | |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use env::clock::Instant;
use log::Offset;
use protocol::ErrorCode;

use super::isr::{IsrState, UNKNOWN_BROKER_EPOCH};

/// Before a refused or failed change of the in-sync set is asked for again.
pub const ISR_BACKOFF: Duration = Duration::from_millis(500);

/// A leadership, as the controller committed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leadership {
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// `min.insync.replicas`; more than there are replicas means all of them.
    pub min_isr: usize,
}

/// One fetch of a follower that the leader answered with records or with "nothing new": its log agrees with the leader's
/// below `from`, and under `flush=fsync` is durable there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetched {
    pub replica: i32,
    pub broker_epoch: i64,
    /// What the image says of the broker: its epoch, `None` if it is fenced, shutting down or unknown.
    pub eligible_epoch: Option<i64>,
    pub leader_epoch: i32,
    pub from: Offset,
    /// The leader's log end when it read for this fetch.
    pub end: Offset,
    /// Where the follower's log begins, durably.
    pub log_start: Offset,
}

/// Another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Where it last fetched from in this leader epoch.
    pub end: Option<Offset>,
    /// Where its log begins, as of a fetch in this leader epoch.
    pub log_start: Option<Offset>,
    pub broker_epoch: i64,
    eligible: bool,
    /// When it last had all that the leader had at that time.
    caught_up: Option<Instant>,
    last_fetch: Option<(Instant, Offset)>,
}

/// A change of the in-sync set on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pending {
    attempt: u64,
    /// Each with the broker epoch in which it was seen in sync. A change that is asked for again names these too: a broker
    /// that began a new life between an ask that was lost and the next may have less (KIP-903).
    isr: BTreeMap<i32, i64>,
    /// The controller has another state than this leader: its answer says nothing about the set, the image will.
    behind: bool,
}

/// A change to ask the controller for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    pub attempt: u64,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub isr: Vec<(i32, i64)>,
    /// Wait this long first.
    pub after: Duration,
}

/// This node's leadership of one partition.
#[derive(Clone, Debug)]
pub struct Leader {
    me: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// Where the log ended when this leadership began.
    pub epoch_start: Offset,
    min_isr: usize,
    lag_max: Duration,
    remotes: BTreeMap<i32, Remote>,
    isr: BTreeSet<i32>,
    pending: Option<Pending>,
    attempts: u64,
    not_before: Instant,
}

impl Leader {
    /// Begins to lead; `end` is the log's end.
    pub fn new(me: i32, lag_max: Duration, with: Leadership, end: Offset, now: Instant) -> Self {
        let mut leader = Self {
            me,
            leader_epoch: with.leader_epoch,
            partition_epoch: -1,
            epoch_start: end,
            min_isr: 1,
            lag_max,
            remotes: BTreeMap::new(),
            isr: BTreeSet::new(),
            pending: None,
            // Never that of an earlier leadership here, whose answer may still come.
            attempts: u64::from(with.leader_epoch.unsigned_abs()) << 32,
            not_before: now,
        };
        leader.update(with, now);
        leader
    }

    /// The image moved on within this leader epoch.
    pub fn update(&mut self, with: Leadership, now: Instant) {
        assert!(with.leader_epoch == self.leader_epoch, "another leader epoch begins another leadership");
        self.min_isr = with.min_isr.min(with.replicas.len()).max(1);
        if with.partition_epoch <= self.partition_epoch {
            return;
        }
        self.partition_epoch = with.partition_epoch;
        self.isr = with.isr.into_iter().collect();
        self.pending = None;
        self.not_before = now;
        self.remotes.retain(|r, _| with.replicas.contains(r));
        for replica in with.replicas.into_iter().filter(|r| *r != self.me) {
            // A member is given the benefit of the doubt for as long as a silent one would be.
            let caught_up = self.isr.contains(&replica).then_some(now);
            self.remotes.entry(replica).or_insert(Remote {
                end: None,
                log_start: None,
                broker_epoch: UNKNOWN_BROKER_EPOCH,
                eligible: false,
                caught_up,
                last_fetch: None,
            });
        }
    }

    pub fn isr(&self) -> &BTreeSet<i32> {
        &self.isr
    }

    pub fn remotes(&self) -> &BTreeMap<i32, Remote> {
        &self.remotes
    }

    /// Whether another replica is to hold what is appended here.
    pub fn is_replicated(&self) -> bool {
        !self.remotes.is_empty()
    }

    pub fn has_enough(&self) -> bool {
        self.isr.len() >= self.min_isr
    }

    fn in_maximal_isr(&self, replica: i32) -> bool {
        self.isr.contains(&replica) || self.pending.as_ref().is_some_and(|p| p.isr.contains_key(&replica))
    }

    /// What the high watermark may go up to: `secured` is how far this node itself counts, `end` where its log ends.
    /// `None` if it may not move.
    pub fn bound(&self, secured: Offset, end: Offset, now: Instant) -> Option<Offset> {
        if !self.has_enough() {
            env::sometimes!(true, "partition: the high watermark waits for min.insync.replicas");
            return None;
        }
        let mut bound = secured;
        for (&replica, remote) in &self.remotes {
            // One that keeps up but is not a member yet is waited for too, or the set could never grow under load.
            if self.in_maximal_isr(replica) || (remote.eligible && self.keeps_up(remote, end, now)) {
                bound = bound.min(remote.end?);
            }
        }
        Some(bound)
    }

    /// The low watermark: what lies below is given up here, where the log begins at `log_start`, and on every replica that
    /// `is_live` (KIP-107). `None` until each of these has fetched from this leader.
    pub fn low_watermark(&self, log_start: Offset, is_live: impl Fn(i32) -> bool) -> Option<Offset> {
        let live = self.remotes.iter().filter(|(replica, _)| is_live(**replica));
        live.map(|(_, remote)| remote.log_start).chain([Some(log_start)]).min().flatten()
    }

    fn keeps_up(&self, remote: &Remote, end: Offset, now: Instant) -> bool {
        remote.end == Some(end) || remote.caught_up.is_some_and(|at| now.saturating_since(at) <= self.lag_max)
    }

    /// A follower fetched. False if the fetch proves nothing.
    pub fn fetched(&mut self, fetch: &Fetched, now: Instant) -> bool {
        let Some(remote) = self.remotes.get_mut(&fetch.replica) else { return false };
        if fetch.leader_epoch != self.leader_epoch || fetch.broker_epoch < remote.broker_epoch {
            env::sometimes!(true, "partition: a late fetch of an earlier life");
            return false;
        }
        if fetch.broker_epoch > remote.broker_epoch {
            // Another life, and under the page cache perhaps another log.
            let caught_up = remote.caught_up;
            *remote = Remote {
                end: None,
                log_start: None,
                broker_epoch: fetch.broker_epoch,
                eligible: false,
                caught_up,
                last_fetch: None,
            };
        }
        remote.eligible = fetch.eligible_epoch == Some(fetch.broker_epoch);
        // Within one life and one leader epoch a log only grows; a request that was overtaken changes nothing.
        remote.end = remote.end.max(Some(fetch.from));
        remote.log_start = remote.log_start.max(Some(fetch.log_start));
        if fetch.from >= fetch.end {
            remote.caught_up = Some(now);
        } else if let Some((at, end)) = remote.last_fetch
            && fetch.from >= end
        {
            remote.caught_up = remote.caught_up.max(Some(at));
        }
        remote.last_fetch = Some((now, fetch.end));
        true
    }

    /// Takes the replica in, if it has all it must have, and has given up what it must have given up: this leader's log
    /// begins at `log_start`.
    pub fn maybe_expand(
        &mut self,
        replica: i32,
        high_watermark: Offset,
        log_start: Offset,
        now: Instant,
    ) -> Option<Ask> {
        let remote = self.remotes.get(&replica)?;
        let end = remote.end?;
        let in_sync = end >= high_watermark && end >= self.epoch_start;
        let has_given_up = remote.log_start >= Some(log_start);
        env::sometimes!(in_sync && !has_given_up, "partition: a follower has not given up what its leader has");
        if !in_sync || !has_given_up || !remote.eligible || self.in_maximal_isr(replica) || !self.may_ask(now) {
            return None;
        }
        let mut isr = self.isr.clone();
        isr.insert(replica);
        env::sometimes!(true, "partition: a replica is to join the in-sync set");
        Some(self.ask(isr))
    }

    /// Takes out members that have not kept up.
    pub fn maybe_shrink(&mut self, end: Offset, now: Instant) -> Option<Ask> {
        if !self.may_ask(now) {
            return None;
        }
        let stays = |r: &i32| *r == self.me || self.remotes.get(r).is_some_and(|m| self.keeps_up(m, end, now));
        let isr: BTreeSet<i32> = self.isr.iter().copied().filter(stays).collect();
        if isr == self.isr {
            return None;
        }
        env::sometimes!(true, "partition: members are to leave the in-sync set");
        Some(self.ask(isr))
    }

    fn may_ask(&self, now: Instant) -> bool {
        self.pending.is_none() && now >= self.not_before
    }

    fn ask(&mut self, isr: BTreeSet<i32>) -> Ask {
        self.attempts += 1;
        let epoch = |r: &i32| self.remotes.get(r).map_or(UNKNOWN_BROKER_EPOCH, |m| m.broker_epoch);
        let isr = isr.iter().map(|r| (*r, epoch(r))).collect();
        self.pending = Some(Pending { attempt: self.attempts, isr, behind: false });
        self.asked(Duration::ZERO)
    }

    fn asked(&self, after: Duration) -> Ask {
        let Some(pending) = &self.pending else { unreachable!("asked for a change") };
        Ask {
            attempt: pending.attempt,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: pending.isr.iter().map(|(broker, epoch)| (*broker, *epoch)).collect(),
            after,
        }
    }

    /// The controller answered. Returns what to ask next, if the same change must be asked for again.
    pub fn answered(&mut self, attempt: u64, result: Result<IsrState, ErrorCode>, now: Instant) -> Option<Ask> {
        let pending = self.pending.as_mut().filter(|p| p.attempt == attempt)?;
        match result {
            Ok(state) if state.leader_epoch == self.leader_epoch && state.partition_epoch > self.partition_epoch => {
                self.partition_epoch = state.partition_epoch;
                self.isr = state.isr.into_iter().collect();
                self.pending = None;
                None
            }
            // The image knew it before, or knows more.
            Ok(_) => {
                pending.behind = true;
                None
            }
            // Certainly not done.
            Err(ErrorCode::OPERATION_NOT_ATTEMPTED | ErrorCode::INELIGIBLE_REPLICA) => {
                self.pending = None;
                self.not_before = now + ISR_BACKOFF;
                None
            }
            Err(
                ErrorCode::FENCED_LEADER_EPOCH
                | ErrorCode::INVALID_UPDATE_VERSION
                | ErrorCode::NEW_LEADER_ELECTED
                | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                | ErrorCode::UNKNOWN_TOPIC_ID
                | ErrorCode::INVALID_REQUEST,
            ) => {
                env::sometimes!(true, "partition: the controller knows a newer in-sync set");
                pending.behind = true;
                None
            }
            // Lost, or nobody to ask: it may have been done, so both sets count until an answer comes.
            Err(_) => Some(self.asked(ISR_BACKOFF)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
    const LAG: Duration = Duration::from_secs(10);

    fn leader(isr: &[i32], min_isr: usize, end: Offset) -> Leader {
        let with =
            Leadership { leader_epoch: 5, partition_epoch: 7, replicas: vec![1, 2, 3], isr: isr.into(), min_isr };
        Leader::new(1, LAG, with, end, NOW)
    }

    fn fetch(replica: i32, from: Offset, end: Offset) -> Fetched {
        Fetched { replica, broker_epoch: 20, eligible_epoch: Some(20), leader_epoch: 5, from, end, log_start: 0 }
    }

    fn committed(isr: &[i32], partition_epoch: i32) -> Result<IsrState, ErrorCode> {
        Ok(IsrState { leader: 1, leader_epoch: 5, isr: isr.into(), partition_epoch })
    }

    #[test]
    fn the_high_watermark_waits_for_every_member_in_this_epoch() {
        let mut l = leader(&[1, 2], 1, 10);
        assert_eq!(l.bound(10, 10, NOW), None, "2 has not fetched in this epoch");
        l.fetched(&fetch(2, 8, 10), NOW);
        assert_eq!(l.bound(10, 10, NOW), Some(8));
        assert!(!l.fetched(&Fetched { leader_epoch: 4, ..fetch(2, 10, 10) }, NOW));
        l.fetched(&fetch(2, 7, 10), NOW);
        assert_eq!(l.bound(9, 10, NOW), Some(8), "an overtaken request takes nothing back");
        l.fetched(&fetch(2, 10, 10), NOW);
        assert_eq!(l.bound(9, 10, NOW), Some(9), "this node counts with what it has secured");
    }

    #[test]
    fn the_low_watermark_waits_for_every_live_replica_in_this_epoch() {
        let mut l = leader(&[1, 2], 1, 10);
        let all = |_| true;
        assert_eq!(l.low_watermark(4, |_| false), Some(4), "nobody else lives");
        assert_eq!(l.low_watermark(4, all), None, "nobody has fetched in this epoch");
        l.fetched(&Fetched { log_start: 4, ..fetch(2, 8, 10) }, NOW);
        assert_eq!((l.low_watermark(4, all), l.low_watermark(4, |r| r != 3)), (None, Some(4)));
        l.fetched(&Fetched { log_start: 2, ..fetch(3, 5, 10) }, NOW);
        assert_eq!(l.low_watermark(4, all), Some(2), "3 is no member, and waited for all the same");
        l.fetched(&Fetched { log_start: 6, ..fetch(3, 9, 10) }, NOW);
        l.fetched(&Fetched { log_start: 2, ..fetch(3, 5, 10) }, NOW);
        assert_eq!(l.low_watermark(9, all), Some(4), "an overtaken request takes nothing back");
        l.fetched(&Fetched { broker_epoch: 30, log_start: 1, ..fetch(2, 8, 10) }, NOW);
        assert_eq!(l.low_watermark(9, all), Some(1), "another life, perhaps with another log");
    }

    #[test]
    fn below_min_insync_replicas_nothing_is_committed() {
        let mut l = leader(&[1], 2, 10);
        assert!(!l.has_enough());
        assert_eq!(l.bound(10, 10, NOW), None);
        l.fetched(&fetch(2, 10, 10), NOW);
        let ask = l.maybe_expand(2, 10, 0, NOW).unwrap();
        assert_eq!((ask.partition_epoch, ask.isr.clone()), (7, vec![(1, -1), (2, 20)]));
        assert_eq!(l.bound(10, 10, NOW), None, "asked for is not committed");
        l.answered(ask.attempt, committed(&[1, 2], 8), NOW);
        assert_eq!(l.bound(10, 10, NOW), Some(10));
        let sole = Leadership { leader_epoch: 0, partition_epoch: 0, replicas: vec![1], isr: vec![1], min_isr: 2 };
        assert_eq!(Leader::new(1, LAG, sole, 3, NOW).bound(3, 3, NOW), Some(3), "all of the replicas are enough");
    }

    #[test]
    fn a_pending_change_counts_both_sets() {
        let mut l = leader(&[1, 2], 1, 10);
        l.fetched(&fetch(2, 10, 10), NOW);
        let later = NOW + LAG + LAG;
        l.fetched(&fetch(3, 12, 12), later);
        let ask = l.maybe_shrink(12, later).unwrap();
        assert_eq!(ask.isr, [(1, -1)]);
        assert_eq!(l.bound(12, 12, later), Some(10), "2 is a member until the controller says otherwise");
        assert_eq!(l.maybe_expand(3, 10, 0, later), None, "one change at a time");
        let again = l.answered(ask.attempt, Err(ErrorCode::REQUEST_TIMED_OUT), later).unwrap();
        assert_eq!((again.attempt, again.after), (ask.attempt, ISR_BACKOFF));
        l.answered(ask.attempt, committed(&[1], 8), later);
        assert_eq!(l.bound(12, 12, later), Some(12), "and 3, which keeps up, has it too");
        let ask = l.maybe_expand(3, 12, 0, later).unwrap();
        assert_eq!((ask.partition_epoch, ask.isr.len()), (8, 2));
        l.answered(ask.attempt, Err(ErrorCode::INVALID_UPDATE_VERSION), later);
        assert_eq!(l.maybe_shrink(12, later + LAG), None, "until the image has caught up");
        assert_eq!(l.bound(13, 13, later), Some(12));
        let image =
            Leadership { leader_epoch: 5, partition_epoch: 9, replicas: vec![1, 2, 3], isr: vec![1, 3], min_isr: 1 };
        l.update(image, later);
        assert_eq!(l.isr().len(), 2);
    }

    #[test]
    fn a_follower_joins_only_past_the_start_of_the_epoch_and_in_its_present_life() {
        let mut l = leader(&[1], 1, 10);
        l.fetched(&fetch(2, 9, 10), NOW);
        assert_eq!(l.maybe_expand(2, 5, 0, NOW), None, "past the high watermark, before the epoch's start");
        l.fetched(&Fetched { eligible_epoch: Some(21), ..fetch(2, 10, 10) }, NOW);
        assert_eq!(l.maybe_expand(2, 5, 0, NOW), None, "a fetch of an earlier life");
        l.fetched(&Fetched { eligible_epoch: None, ..fetch(2, 10, 10) }, NOW);
        assert_eq!(l.maybe_expand(2, 5, 0, NOW), None, "fenced");
        l.fetched(&fetch(2, 10, 10), NOW);
        assert_eq!(l.maybe_expand(2, 5, 1, NOW), None, "it has what the leader has given up");
        let ask = l.maybe_expand(2, 5, 0, NOW).unwrap();
        l.answered(ask.attempt, Err(ErrorCode::INELIGIBLE_REPLICA), NOW);
        assert_eq!(l.maybe_expand(2, 5, 0, NOW), None, "not at once again");
        assert!(l.maybe_expand(2, 5, 0, NOW + ISR_BACKOFF).is_some());
        let mut l = leader(&[1], 1, 10);
        l.fetched(&Fetched { broker_epoch: 30, eligible_epoch: Some(30), ..fetch(2, 4, 10) }, NOW);
        assert!(!l.fetched(&fetch(2, 10, 10), NOW), "the earlier life comes late");
        assert_eq!(l.remotes()[&2].end, Some(4));
    }

    #[test]
    fn a_change_that_is_asked_for_again_names_the_lives_it_was_made_for() {
        let mut l = leader(&[1], 1, 10);
        l.fetched(&fetch(2, 10, 10), NOW);
        let ask = l.maybe_expand(2, 10, 0, NOW).unwrap();
        // It lost power and has less now; the ask was lost as well.
        l.fetched(&Fetched { broker_epoch: 30, eligible_epoch: Some(30), ..fetch(2, 4, 10) }, NOW);
        let again = l.answered(ask.attempt, Err(ErrorCode::REQUEST_TIMED_OUT), NOW).unwrap();
        assert_eq!(again.isr, [(1, -1), (2, 20)]);
        l.answered(ask.attempt, Err(ErrorCode::INELIGIBLE_REPLICA), NOW);
        let later = NOW + ISR_BACKOFF;
        assert_eq!(l.maybe_expand(2, 10, 0, later), None, "it lacks the end");
        l.fetched(&Fetched { broker_epoch: 30, eligible_epoch: Some(30), ..fetch(2, 10, 10) }, later);
        assert_eq!(l.maybe_expand(2, 10, 0, later).unwrap().isr, [(1, -1), (2, 30)]);
    }

    #[test]
    fn a_member_that_always_has_what_there_was_at_its_last_fetch_keeps_up() {
        let mut l = leader(&[1, 2], 1, 0);
        let mut now = NOW;
        for n in 1..20 {
            now += LAG / 2;
            // Under load it never has everything, yet is one fetch behind only.
            l.fetched(&fetch(2, 10 * (n - 1), 10 * n), now);
            assert_eq!(l.maybe_shrink(10 * n, now), None);
        }
        for _ in 0..3 {
            now += LAG / 2;
            l.fetched(&fetch(2, 195, 500), now);
        }
        assert_eq!(l.maybe_shrink(500, now).unwrap().isr, [(1, -1)]);
    }
}
