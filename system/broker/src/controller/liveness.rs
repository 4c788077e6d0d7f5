//! Which brokers the controller heard of lately. Kept in memory only: a new controller gives everybody a full session
//! before it calls anybody dead.

use std::collections::BTreeMap;
use std::time::Duration;

use env::clock::Instant;

#[derive(Clone, Copy, Debug)]
struct Session {
    last_contact: Instant,
    /// Whether `last_contact` is a heartbeat, not the beginning of this controller's term.
    heard: bool,
    /// The last record of the metadata log that the broker acts by.
    metadata_offset: i64,
    /// Set when the broker's leaderships were moved away: the others must act by what is below this.
    moved_at: Option<i64>,
}

#[derive(Debug)]
pub struct Liveness {
    timeout: Duration,
    sessions: BTreeMap<i32, Session>,
}

impl Liveness {
    pub fn new(timeout: Duration, unfenced: impl Iterator<Item = i32>, now: Instant) -> Self {
        let session = Session { last_contact: now, heard: false, metadata_offset: -1, moved_at: None };
        Self { timeout, sessions: unfenced.map(|b| (b, session)).collect() }
    }

    /// The broker is fenced: it has no session until it is unfenced.
    pub fn ended(&mut self, broker: i32) {
        self.sessions.remove(&broker);
    }

    /// Gives everybody a full session again.
    pub fn renew(&mut self, now: Instant) {
        self.sessions.values_mut().for_each(|s| s.last_contact = now);
    }

    /// An unfenced broker's heartbeat.
    pub fn heard(&mut self, broker: i32, metadata_offset: i64, now: Instant) {
        let moved_at = self.sessions.get(&broker).and_then(|s| s.moved_at);
        self.sessions.insert(broker, Session { last_contact: now, heard: true, metadata_offset, moved_at });
    }

    /// Whether this controller heard of the broker within its session time-out.
    pub fn is_alive(&self, broker: i32, now: Instant) -> bool {
        self.sessions.get(&broker).is_some_and(|s| s.heard && now < s.last_contact + self.timeout)
    }

    /// The broker's leaderships are elsewhere once everybody acts by the log below `end`.
    pub fn moved(&mut self, broker: i32, end: i64) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.moved_at = Some(end);
        }
    }

    pub fn is_moved(&self, broker: i32) -> bool {
        self.sessions.get(&broker).is_some_and(|s| s.moved_at.is_some())
    }

    /// Whether all others act by the move of the broker's leaderships.
    pub fn others_know(&self, broker: i32) -> bool {
        let Some(end) = self.sessions.get(&broker).and_then(|s| s.moved_at) else { return false };
        self.sessions.iter().all(|(other, s)| *other == broker || s.moved_at.is_some() || s.metadata_offset + 1 >= end)
    }

    /// Brokers whose sessions have ended by `now`; `spared` never ends.
    pub fn expired(&self, now: Instant, spared: i32) -> Vec<i32> {
        let ended = |s: &Session| now >= s.last_contact + self.timeout;
        self.sessions.iter().filter(|(b, s)| **b != spared && ended(s)).map(|(b, _)| *b).collect()
    }

    /// When the next session ends.
    pub fn next_expiry(&self, spared: i32) -> Option<Instant> {
        self.sessions.iter().filter(|(b, _)| **b != spared).map(|(_, s)| s.last_contact + self.timeout).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_new_controller_waits_a_session_but_takes_nobody_for_alive() {
        let live = Liveness::new(Duration::from_millis(100), [1, 2].into_iter(), at(50));
        assert!(!live.is_alive(1, at(50)));
        assert!(live.expired(at(149), -1).is_empty());
        assert_eq!(live.expired(at(150), -1), [1, 2]);
        assert_eq!(live.next_expiry(-1), Some(at(150)));
        assert_eq!(live.expired(at(150), 2), [1]);
    }

    #[test]
    fn a_stopping_broker_waits_until_the_others_act_by_the_move() {
        let mut live = Liveness::new(Duration::from_millis(100), [1, 2, 3].into_iter(), at(0));
        live.heard(1, 10, at(1));
        live.heard(2, 9, at(1));
        assert!(!live.others_know(1));
        live.moved(1, 11);
        live.heard(2, 10, at(2));
        assert!(!live.others_know(1));
        live.heard(3, 12, at(2));
        live.heard(1, 10, at(2));
        assert!(live.others_know(1));
    }
}
