//! One transactional id as the coordinator holds it: its durable state, and the change on its way to the log.

use std::collections::VecDeque;

use env::clock::Instant;

use super::messages::{Action, Now, Reply, Request, RequestId, Token};
use crate::txn::state::{CLIENT_BUMPS, ProducerIdEpoch, State, Txn};

#[derive(Debug)]
pub(super) enum After {
    Reply(RequestId, Reply),
    /// A time-out or a fencing InitProducerId decided it: nobody waits.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Change {
    pub token: Token,
    pub target: Txn,
    pub after: After,
    /// Another instance took the id over: the holder of the identity before is not to learn the new one.
    pub fences: bool,
    /// The id is forgotten with it.
    pub forgets: bool,
    /// Joining requests that came meanwhile.
    pub waiting: VecDeque<(RequestId, Request)>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub txn: Txn,
    /// The identity before the last bump by InitProducerId or EndTxn: its holder may ask again for the new one.
    pub last: Option<ProducerIdEpoch>,
    /// When the ongoing transaction times out.
    pub deadline: Option<Instant>,
    /// When the id, which has no transaction, is forgotten.
    pub expires: Option<Instant>,
    pub change: Option<Change>,
    /// The change whose markers are being written.
    pub marking: Option<Token>,
}

impl Entry {
    /// Of a state that nobody waits for.
    pub fn new(txn: Txn, deadline: Option<Instant>) -> Self {
        Self { txn, last: None, deadline, expires: None, change: None, marking: None }
    }

    /// Nothing of it is in the log: its first record is on the way there.
    pub fn is_new(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.target == self.txn)
    }

    pub fn change_to(&mut self, transactional_id: &str, token: Token, target: Txn, after: After) -> Action {
        assert!(self.change.is_none(), "two changes of {transactional_id} at a time");
        let txn = target.clone();
        self.change = Some(Change { token, target, after, fences: false, forgets: false, waiting: VecDeque::new() });
        Action::Persist { transactional_id: transactional_id.to_owned(), token, txn }
    }

    pub fn forget(&mut self, transactional_id: &str, token: Token) -> Action {
        assert!(self.change.is_none(), "two changes of {transactional_id} at a time");
        let (target, after) = (self.txn.clone(), After::Nothing);
        self.change = Some(Change { token, target, after, fences: false, forgets: true, waiting: VecDeque::new() });
        Action::Forget { transactional_id: transactional_id.to_owned(), token }
    }

    pub fn fence(&mut self, fences: bool) {
        if let Some(change) = &mut self.change {
            change.fences = fences;
        }
    }

    /// What follows a durable decision.
    pub fn finish(&mut self, now: Now, transactional_id: &str, token: Token, next: Token) -> Vec<Action> {
        if self.txn.partitions.is_empty() {
            let target = self.txn.completed(now.wall_ms);
            return vec![self.change_to(transactional_id, next, target, After::Nothing)];
        }
        self.marking = Some(token);
        vec![Action::WriteMarkers {
            transactional_id: transactional_id.to_owned(),
            token,
            producer: self.txn.producer,
            commit: self.txn.state == State::PrepareCommit,
            bumps: self.txn.client_version >= CLIENT_BUMPS,
            partitions: self.txn.partitions.iter().cloned().collect(),
        }]
    }
}
