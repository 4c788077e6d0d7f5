//! What a request of a producer does to its transactional id. Changes nothing by itself.

use protocol::ErrorCode;

use super::entry::Entry;
use super::messages::{Config, Now, Reply, Request};
use crate::txn::state::{CLIENT_BUMPS, NO_TIMEOUT_MS, ProducerIdEpoch, State, TopicPartition, Txn};

impl Config {
    /// The time-out to store.
    pub fn check_timeout(&self, timeout_ms: i32, two_phase: bool, keep_prepared: bool) -> Result<i32, ErrorCode> {
        if two_phase {
            if self.two_phase_commit {
                Ok(NO_TIMEOUT_MS)
            } else {
                Err(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            }
        } else if keep_prepared {
            Err(ErrorCode::INVALID_TXN_STATE)
        } else if timeout_ms <= 0 || timeout_ms > self.max_timeout_ms {
            Err(ErrorCode::INVALID_TRANSACTION_TIMEOUT)
        } else {
            Ok(timeout_ms)
        }
    }
}

pub(super) enum Decision {
    Answer(Reply),
    Allocate,
    Change(Txn, Reply),
    /// Abort the ongoing transaction under a new epoch; the client comes again.
    Fence(Txn),
}

impl Entry {
    pub fn decide(
        &self,
        now: Now,
        config: &Config,
        request: &Request,
        fresh: Option<i64>,
    ) -> Result<Decision, ErrorCode> {
        match request {
            Request::InitProducerId { timeout_ms, expected, two_phase, keep_prepared } => {
                let timeout_ms = config.check_timeout(*timeout_ms, *two_phase, *keep_prepared)?;
                self.init(now, timeout_ms, *expected, *keep_prepared, fresh)
            }
            Request::AddPartitions { producer, partitions, verify_only, bumps } => {
                self.add(now, *producer, partitions, *verify_only, *bumps)
            }
            Request::EndTxn { producer, commit, bumps } => self.end(now, *producer, *commit, *bumps, fresh),
        }
    }

    fn init(
        &self,
        now: Now,
        timeout_ms: i32,
        expected: Option<ProducerIdEpoch>,
        keep_prepared: bool,
        fresh: Option<i64>,
    ) -> Result<Decision, ErrorCode> {
        if self.change.is_some() || self.txn.state.is_prepare() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let client = self.txn.client();
        let kept = self.txn.is_kept().then_some(self.txn.producer);
        if let Some(id) = expected
            && id != client
        {
            // It was given the new identity and lost the answer; nobody can have used it since.
            let unused = self.txn.state != State::Ongoing || (kept.is_some() && keep_prepared);
            if Some(id) != self.last || !unused || client.epoch == i16::MAX {
                return Err(ErrorCode::PRODUCER_FENCED);
            }
            env::sometimes!(true, "InitProducerId is repeated after a lost answer");
            return Ok(Decision::Answer(Reply::Initialized { producer: client, ongoing: kept }));
        }
        if self.txn.state == State::Ongoing && !keep_prepared {
            let target = self.txn.prepared(false, client.bumped(), now.wall_ms);
            return Ok(Decision::Fence(target));
        }
        let next = match (client.is_exhausted(), fresh) {
            (false, _) => client.bumped(),
            (true, None) => return Ok(Decision::Allocate),
            (true, Some(id)) => ProducerIdEpoch::new(id, 0),
        };
        let mut target = Txn { timeout_ms, last_update_ms: now.wall_ms, ..self.txn.clone() };
        let ongoing = if self.txn.state == State::Ongoing {
            env::sometimes!(true, "a prepared transaction is kept over InitProducerId");
            target.next = Some(next);
            Some(self.txn.producer)
        } else {
            target.state = State::Empty;
            target.producer = next;
            target.previous_producer_id = -1;
            None
        };
        Ok(Decision::Change(target, Reply::Initialized { producer: next, ongoing }))
    }

    fn add(
        &self,
        now: Now,
        producer: ProducerIdEpoch,
        partitions: &[TopicPartition],
        verify_only: bool,
        bumps: bool,
    ) -> Result<Decision, ErrorCode> {
        let client = self.txn.client();
        if producer.producer_id != client.producer_id {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        if producer.epoch != client.epoch {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        if self.change.is_some() || self.txn.state.is_prepare() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        if self.txn.is_kept() || client.epoch == i16::MAX {
            return Err(if client.epoch == i16::MAX {
                ErrorCode::PRODUCER_FENCED
            } else {
                ErrorCode::INVALID_TXN_STATE
            });
        }
        let ongoing = self.txn.state == State::Ongoing;
        if ongoing && partitions.iter().all(|p| self.txn.partitions.contains(p)) {
            return Ok(Decision::Answer(Reply::Added));
        }
        if verify_only {
            return Err(ErrorCode::TRANSACTION_ABORTABLE);
        }
        let mut target = self.txn.clone();
        if !ongoing {
            target.state = State::Ongoing;
            target.start_ms = now.wall_ms;
            target.previous_producer_id = -1;
            target.client_version = if bumps { CLIENT_BUMPS } else { 0 };
        }
        target.partitions.extend(partitions.iter().cloned());
        target.last_update_ms = now.wall_ms;
        Ok(Decision::Change(target, Reply::Added))
    }

    fn end(
        &self,
        now: Now,
        producer: ProducerIdEpoch,
        commit: bool,
        bumps: bool,
        fresh: Option<i64>,
    ) -> Result<Decision, ErrorCode> {
        let client = self.txn.client();
        let retry = bumps && self.txn.is_retry_of_end(producer);
        if producer != client && !retry {
            return Err(if producer.producer_id == client.producer_id {
                ErrorCode::PRODUCER_FENCED
            } else {
                ErrorCode::INVALID_PRODUCER_ID_MAPPING
            });
        }
        if self.change.is_some() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        // A repeated EndTxn, its first answer lost.
        if retry {
            env::sometimes!(true, "EndTxn is repeated after a lost answer");
            return match self.txn.state.outcome() {
                // A later transaction, or a later holder of the id: nothing here is this request's to end.
                None => Err(ErrorCode::PRODUCER_FENCED),
                // The last epoch is no client's: it must ask for a new producer id.
                Some(_) if client.epoch == i16::MAX => Err(ErrorCode::PRODUCER_FENCED),
                Some(outcome) if outcome != commit => Err(ErrorCode::INVALID_TXN_STATE),
                Some(_) if self.txn.state.is_prepare() => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
                Some(_) => Ok(Decision::Answer(Reply::Ended { producer: client })),
            };
        }
        match self.txn.state {
            State::PrepareCommit | State::PrepareAbort if bumps => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            State::PrepareCommit if commit => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            State::PrepareAbort if !commit => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            State::PrepareCommit | State::PrepareAbort => Err(ErrorCode::INVALID_TXN_STATE),
            // Without a new epoch per transaction a repeat looks like this.
            State::CompleteCommit if commit && !bumps => Ok(Decision::Answer(Reply::Ended { producer: client })),
            State::CompleteAbort if !commit && !bumps => Ok(Decision::Answer(Reply::Ended { producer: client })),
            // A client that cannot know whether its first produce arrived aborts: it gets a new epoch, so that a late
            // produce cannot open a transaction (KIP-890).
            State::Empty | State::CompleteCommit | State::CompleteAbort if !bumps || commit => {
                Err(ErrorCode::INVALID_TXN_STATE)
            }
            State::Ongoing | State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let after = match (bumps, client.is_exhausted(), fresh) {
                    (false, ..) => client,
                    (true, false, _) => client.bumped(),
                    (true, true, None) => return Ok(Decision::Allocate),
                    (true, true, Some(id)) => {
                        env::sometimes!(true, "a producer's epochs are exhausted");
                        ProducerIdEpoch::new(id, 0)
                    }
                };
                let mut target = self.txn.prepared(commit, after, now.wall_ms);
                if bumps {
                    target.client_version = CLIENT_BUMPS;
                }
                Ok(Decision::Change(target, Reply::Ended { producer: after }))
            }
        }
    }
}
