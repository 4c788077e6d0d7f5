//! Who leads a partition, and which replicas may: the one place where an in-sync set, an eligible set or a leader is
//! chosen.
//!
//! Guarantees, of every change made here: a new leader comes from the in-sync set, or from the eligible set (KIP-966)
//! when the in-sync set is empty, unless the election is allowed to be unclean; the eligible set only names replicas that
//! were in sync when the in-sync set fell below its minimum, and have neither been stopped uncleanly nor lost their disk
//! since. Both sets together hold every record that was acknowledged, as long as a leader does not move its high
//! watermark with fewer in-sync replicas than the minimum.
//!
//! ```text
//!              isr        elr       leader      minimum 2
//! all alive    0 1 2      -         0
//! 2 dies       0 1        -         0
//! 1 dies       0          1         0           below the minimum: 1 stays eligible, the high watermark stands still
//! 0 dies       -          0 1       none
//! 1 returns    1          0         1           nothing acknowledged is missing at 1
//! ```

use protocol::Uuid;

use crate::metadata::PartitionState;
use crate::metadata::image::NO_LEADER;
use crate::metadata::records::{PartitionChange, UNASSIGNED};

/// How far an election may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Election {
    /// The first replica if it may lead, else as `Online`.
    Preferred,
    /// Keeps the leader if it may go on, else the first replica that may lead.
    Online,
    /// As `Online`; if none may lead, the first replica alive: acknowledged records may be lost.
    Unclean,
}

/// What happened to a replica's log while its broker was away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Stopped uncleanly, without having synced what it had promised: its tail may be gone.
    Tail,
    /// On another disk than before: all may be gone.
    Disk,
}

/// The state a partition should come to.
pub struct Target<'a> {
    pub isr: Vec<i32>,
    pub recovering: bool,
    pub election: Election,
    /// The topic's `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// Whether a broker is alive and not about to stop.
    pub is_active: &'a dyn Fn(i32) -> bool,
    pub damaged: Option<(i32, Damage)>,
}

impl<'a> Target<'a> {
    /// The partition as it is, with the best leader there is.
    pub fn of(state: &PartitionState, min_insync_replicas: i32, is_active: &'a dyn Fn(i32) -> bool) -> Self {
        Self {
            isr: state.isr.clone(),
            recovering: state.recovering,
            election: Election::Online,
            min_insync_replicas,
            is_active,
            damaged: None,
        }
    }
}

/// In-sync replicas without which nothing is acknowledged to acks=all.
pub fn effective_minimum(min_insync_replicas: i32, replicas: usize) -> usize {
    usize::try_from(min_insync_replicas).unwrap_or(1).min(replicas)
}

/// The change that leads to `target`; `None` if the partition is there.
pub fn change(topic_id: Uuid, partition: i32, state: &PartitionState, target: &Target<'_>) -> Option<PartitionChange> {
    let mut isr = target.isr.clone();
    let mut elr = eligible(state, &isr, target);
    let mut last_known = state.last_known_elr.clone();
    let mut recovering = target.recovering;
    if let Some((broker, Damage::Disk)) = target.damaged {
        last_known.retain(|r| *r != broker);
    }
    let (leader, unclean) = elect(state, &isr, &elr, &last_known, target);
    if leader != state.leader && leader != NO_LEADER {
        if unclean {
            // What the others hold counts no more: the new leader's log is the partition's from now on.
            isr = vec![leader];
            elr.clear();
            recovering = true;
        } else if isr.is_empty() {
            isr = vec![leader];
            elr = eligible(state, &isr, target);
        }
    }
    if !isr.is_empty() {
        last_known.clear();
    } else if state.leader != NO_LEADER && !matches!(target.damaged, Some((b, Damage::Disk)) if b == state.leader) {
        last_known = vec![state.leader];
    }
    let mut directories = None;
    if let Some((broker, Damage::Disk)) = target.damaged
        && let Some(at) = state.replicas.iter().position(|r| *r == broker)
        && state.directories[at] != UNASSIGNED
    {
        let mut moved = state.directories.clone();
        moved[at] = UNASSIGNED;
        directories = Some(moved);
    }
    let changed = |now: Vec<i32>, before: &Vec<i32>| if now == *before { None } else { Some(now) };
    let change = PartitionChange {
        isr: changed(isr, &state.isr),
        leader: if leader == state.leader { None } else { Some(leader) },
        recovering: if recovering == state.recovering { None } else { Some(recovering) },
        elr: changed(elr, &state.elr),
        last_known_elr: changed(last_known, &state.last_known_elr),
        directories,
        ..PartitionChange::of(topic_id, partition)
    };
    if change.is_empty() { None } else { Some(change) }
}

/// Replicas outside `isr` that hold everything below the high watermark.
fn eligible(state: &PartitionState, isr: &[i32], target: &Target<'_>) -> Vec<i32> {
    if isr.len() >= effective_minimum(target.min_insync_replicas, state.replicas.len()) {
        // The high watermark may move without them.
        return Vec::new();
    }
    let held = |r: &i32| state.isr.contains(r) || state.elr.contains(r);
    let damaged = |r: &i32| matches!(target.damaged, Some((b, _)) if b == *r);
    state.replicas.iter().copied().filter(|r| held(r) && !isr.contains(r) && !damaged(r)).collect()
}

/// The leader, and whether it may lack acknowledged records.
fn elect(state: &PartitionState, isr: &[i32], elr: &[i32], last_known: &[i32], target: &Target<'_>) -> (i32, bool) {
    let may_lead = |r: i32| {
        let holds_all = isr.contains(&r) || (isr.is_empty() && elr.contains(&r));
        holds_all && (target.is_active)(r)
    };
    let preferred = state.replicas[0];
    if target.election == Election::Preferred && may_lead(preferred) {
        return (preferred, false);
    }
    if may_lead(state.leader) {
        return (state.leader, false);
    }
    if let Some(leader) = state.replicas.iter().copied().find(|r| may_lead(*r)) {
        return (leader, false);
    }
    if isr.is_empty()
        && elr.is_empty()
        && let [last] = last_known
        && (target.is_active)(*last)
        && state.replicas.contains(last)
    {
        return (*last, true);
    }
    if target.election == Election::Unclean
        && let Some(leader) = state.replicas.iter().copied().find(|r| (target.is_active)(*r))
    {
        return (leader, true);
    }
    (NO_LEADER, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(1);

    fn state(isr: &[i32], elr: &[i32], leader: i32) -> PartitionState {
        PartitionState {
            replicas: vec![0, 1, 2],
            isr: isr.to_vec(),
            leader,
            leader_epoch: 4,
            partition_epoch: 9,
            directories: vec![UNASSIGNED; 3],
            removing: vec![],
            adding: vec![],
            recovering: false,
            elr: elr.to_vec(),
            last_known_elr: vec![],
        }
    }

    /// Applies what `target` changes, made from the state with the brokers `alive`.
    fn step(
        state: &PartitionState,
        alive: &[i32],
        set: impl FnOnce(&mut Target<'_>),
    ) -> (PartitionState, Option<PartitionChange>) {
        let is_active = |r: i32| alive.contains(&r);
        let mut target = Target::of(state, 2, &is_active);
        set(&mut target);
        let change = change(TOPIC, 0, state, &target);
        let mut next = state.clone();
        if let Some(change) = &change {
            let mut image = crate::metadata::MetadataImage::default();
            let records = [
                crate::metadata::records::MetadataRecord::Topic { name: "t".into(), topic_id: TOPIC },
                crate::metadata::records::MetadataRecord::Partition { partition: 0, topic_id: TOPIC, state: next },
                crate::metadata::records::MetadataRecord::PartitionChange(change.clone()),
            ];
            for record in &records {
                image.apply(record).unwrap();
            }
            next = image.partition(TOPIC, 0).unwrap().clone();
        }
        (next, change)
    }

    fn dies(s: &PartitionState, broker: i32, alive: &[i32]) -> PartitionState {
        step(s, alive, |t| t.isr.retain(|r| *r != broker)).0
    }

    #[test]
    fn the_story_of_the_header() {
        let s = state(&[0, 1, 2], &[], 0);
        let s = dies(&s, 2, &[0, 1]);
        assert_eq!((&s.isr[..], &s.elr[..], s.leader, s.leader_epoch), (&[0, 1][..], &[][..], 0, 4));
        let s = dies(&s, 1, &[0]);
        assert_eq!((&s.isr[..], &s.elr[..], s.leader), (&[0][..], &[1][..], 0));
        let s = dies(&s, 0, &[]);
        assert_eq!((&s.isr[..], &s.elr[..], s.leader, s.leader_epoch), (&[][..], &[0, 1][..], NO_LEADER, 5));
        let (none, _) = step(&s, &[2], |_| {});
        assert_eq!(none, s, "2 left before anybody else and may lack records");
        let (s, _) = step(&s, &[1], |_| {});
        assert_eq!((&s.isr[..], &s.elr[..], s.leader, s.leader_epoch), (&[1][..], &[0][..], 1, 6));
        assert!(s.last_known_elr.is_empty() && !s.recovering);
    }

    #[test]
    fn an_unclean_stop_ends_eligibility_and_the_last_leader_alone_may_come_back() {
        let s = state(&[], &[0, 1], NO_LEADER);
        let s = PartitionState { last_known_elr: vec![0], ..s };
        let (s, _) = step(&s, &[], |t| t.damaged = Some((1, Damage::Tail)));
        let (s, _) = step(&s, &[], |t| t.damaged = Some((0, Damage::Tail)));
        assert_eq!((s.isr.len(), s.elr.len(), &s.last_known_elr[..]), (0, 0, &[0][..]));
        let (still, _) = step(&s, &[1, 2], |_| {});
        assert_eq!(still.leader, NO_LEADER);
        let (s, _) = step(&s, &[0, 1, 2], |_| {});
        assert_eq!((s.leader, &s.isr[..], s.recovering), (0, &[0][..], true));
    }

    #[test]
    fn a_lost_disk_leads_only_by_permission() {
        let s = state(&[0], &[], 0);
        let s = PartitionState { directories: vec![Uuid::from_u128(5); 3], ..s };
        let (s, _) = step(&s, &[], |t| {
            t.isr.clear();
            t.damaged = Some((0, Damage::Disk));
        });
        assert_eq!((s.isr.len(), s.elr.len(), s.last_known_elr.len(), s.leader), (0, 0, 0, NO_LEADER));
        assert_eq!(s.directories[0], UNASSIGNED);
        let (still, change) = step(&s, &[0, 1, 2], |_| {});
        assert!(change.is_none() && still.leader == NO_LEADER);
        let (s, _) = step(&s, &[1, 2], |t| t.election = Election::Unclean);
        assert_eq!((s.leader, &s.isr[..], s.recovering), (1, &[1][..], true));
    }

    #[test]
    fn the_preferred_replica_takes_over_only_when_asked_and_in_sync() {
        let s = state(&[0, 1, 2], &[], 1);
        assert!(step(&s, &[0, 1, 2], |_| {}).1.is_none());
        let preferred = |t: &mut Target<'_>| t.election = Election::Preferred;
        assert_eq!(step(&s, &[0, 1, 2], preferred).0.leader, 0);
        assert!(step(&state(&[1, 2], &[], 1), &[0, 1, 2], preferred).1.is_none());
    }

    #[test]
    fn the_minimum_reached_again_ends_eligibility() {
        let s = state(&[1], &[0], 1);
        let (s, _) = step(&s, &[0, 1, 2], |t| t.isr = vec![1, 2]);
        assert_eq!((&s.isr[..], s.elr.len()), (&[1, 2][..], 0));
    }
}
