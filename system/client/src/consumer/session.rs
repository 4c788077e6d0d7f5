//! The client's half of an incremental fetch session (KIP-227): what the broker was last asked for and told, so that the
//! next request names only what changed, and an answer that leaves a partition out means "as before". Pure; one for
//! each broker, and one request of it at a time.

use std::collections::BTreeMap;

use protocol::{ErrorCode, Uuid};

use super::machine::{Answer, Wanted};
use crate::metadata::TopicPartition;

/// What a partition was asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    position: i64,
    leader_epoch: i32,
    topic_id: Option<Uuid>,
}

/// What the broker last told of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    last_stable_offset: i64,
    log_start_offset: i64,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0: none.
    id: i32,
    /// Of the next request; 0 begins a session.
    epoch: i32,
    asked: BTreeMap<TopicPartition, Asked>,
    told: BTreeMap<TopicPartition, Told>,
}

/// A request's part in the session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub session_id: i32,
    pub session_epoch: i32,
    /// Those of the wanted that must be named.
    pub named: Vec<Wanted>,
    pub forgotten: Vec<(TopicPartition, Option<Uuid>)>,
}

impl Session {
    pub fn ask(&mut self, wanted: &[Wanted], topic_id: impl Fn(&str) -> Option<Uuid>) -> Ask {
        let asked_for =
            |w: &Wanted| Asked { position: w.position, leader_epoch: w.leader_epoch, topic_id: topic_id(&w.tp.topic) };
        let now: BTreeMap<_, _> = wanted.iter().map(|w| (w.tp.clone(), asked_for(w))).collect();
        // Another topic under the same name cannot be told from the old one inside a session.
        let recreated =
            now.iter().any(|(tp, a)| self.asked.get(tp).is_some_and(|before| before.topic_id != a.topic_id));
        if recreated {
            self.reset();
        }
        let incremental = self.id != 0 && self.epoch > 0;
        let news = |w: &&Wanted| !incremental || self.asked.get(&w.tp) != now.get(&w.tp);
        let named = wanted.iter().filter(news).cloned().collect();
        let gone = |(tp, a): (&TopicPartition, &Asked)| (tp.clone(), a.topic_id);
        let forgotten = self.asked.iter().filter(|(tp, _)| incremental && !now.contains_key(*tp)).map(gone).collect();
        self.told.retain(|tp, _| now.contains_key(tp));
        self.asked = now;
        Ask { session_id: self.id, session_epoch: self.epoch, named, forgotten }
    }

    /// Takes in an answer, and adds what it left out because nothing changed.
    pub fn answered(&mut self, session_id: i32, code: ErrorCode, answers: &mut BTreeMap<TopicPartition, Answer>) {
        if !code.is_ok() {
            env::sometimes!(self.epoch > 0, "a fetch session is over");
            return self.reset();
        }
        for (tp, a) in answers.iter().filter(|(_, a)| a.code.is_ok()) {
            let told = Told {
                high_watermark: a.high_watermark,
                last_stable_offset: a.last_stable_offset,
                log_start_offset: a.log_start_offset,
            };
            self.told.insert(tp.clone(), told);
        }
        if session_id == 0 {
            // No session, and so no change left out.
            (self.id, self.epoch) = (0, 0);
            return;
        }
        if self.epoch > 0 {
            for (tp, told) in &self.told {
                if !answers.contains_key(tp) {
                    let as_before = Answer {
                        high_watermark: told.high_watermark,
                        last_stable_offset: told.last_stable_offset,
                        log_start_offset: told.log_start_offset,
                        ..Answer::default()
                    };
                    answers.insert(tp.clone(), as_before);
                }
            }
        }
        self.id = session_id;
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// There was no answer: the broker may have taken the request in. The next one begins anew, and ends this session.
    pub fn lost(&mut self) {
        self.epoch = 0;
        self.asked.clear();
        self.told.clear();
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(p: i32) -> TopicPartition {
        TopicPartition::new("t", p)
    }

    fn answer(high_watermark: i64) -> Answer {
        Answer { high_watermark, ..Answer::default() }
    }

    fn ask(s: &mut Session, partitions: &[(i32, i64)]) -> (i32, i32, Vec<i32>, Vec<i32>) {
        let wanted: Vec<_> = partitions.iter().map(|(p, at)| Wanted::of(tp(*p), *at)).collect();
        let ask = s.ask(&wanted, |_| None);
        let named = ask.named.iter().map(|w| w.tp.partition).collect();
        (ask.session_id, ask.session_epoch, named, ask.forgotten.iter().map(|(tp, _)| tp.partition).collect())
    }

    #[test]
    fn only_changes_are_named_and_what_is_left_out_is_as_before() {
        let mut s = Session::default();
        assert_eq!(ask(&mut s, &[(0, 5), (1, 5)]), (0, 0, vec![0, 1], vec![]));
        let mut answers = BTreeMap::from([(tp(0), answer(8)), (tp(1), answer(9))]);
        s.answered(7, ErrorCode::NONE, &mut answers);
        assert_eq!(ask(&mut s, &[(0, 8), (1, 5)]), (7, 1, vec![0], vec![]));
        let mut answers = BTreeMap::from([(tp(0), answer(10))]);
        s.answered(7, ErrorCode::NONE, &mut answers);
        assert_eq!(answers[&tp(1)].high_watermark, 9);
        assert_eq!(ask(&mut s, &[(1, 5), (2, 0)]), (7, 2, vec![2], vec![0]));
        s.lost();
        assert_eq!(ask(&mut s, &[(1, 5)]), (7, 0, vec![1], vec![]), "the old session is ended");
        s.answered(0, ErrorCode::FETCH_SESSION_ID_NOT_FOUND, &mut BTreeMap::new());
        assert_eq!(ask(&mut s, &[(1, 5)]), (0, 0, vec![1], vec![]));
        s.answered(0, ErrorCode::NONE, &mut BTreeMap::new());
        assert_eq!(ask(&mut s, &[(1, 5)]), (0, 0, vec![1], vec![]), "a broker without sessions is asked for all");
    }
}
