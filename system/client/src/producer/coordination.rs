//! The calls a producer makes to coordinators: identity, partitions and offsets of a transaction, its end.
//!
//! Each call is repeated until the coordinator has answered or the client's `api_timeout` has passed. A transactional
//! method may be called again after [`Remedy::Retry`], and its future may be dropped: the producer's state says how
//! far it had come.

use std::collections::{BTreeMap, BTreeSet};

use protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use protocol::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use protocol::messages::{AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, TxnOffsetCommitRequest};
use protocol::{ApiKey, ErrorCode, InitProducerIdRequest, RequestBody, ResponseBody, str_bytes, topic_name};

use super::driver::ROLE;
use super::transaction::{State, TxnVersion, is_fatal};
use super::{Producer, ProducerIdEpoch, Shared};
use crate::admin::{CommittedOffset, by_topic};
use crate::client::{Attempt, Client, CoordinatorType};
use crate::error::{ClientError, Outcome, Remedy, SendError, TxnError};
use crate::group::GroupMetadata;
use crate::metadata::TopicPartition;
use crate::probe::ClientProbe;

/// Two-phase commit came with this version of InitProducerId (KIP-939).
const FIRST_TWO_PHASE: i16 = 6;
/// From this version on EndTxn returns the identity of the next transaction (KIP-890).
const FIRST_BUMPING_END: i16 = 5;
/// From this version on the group coordinator adds itself to the transaction (KIP-890).
const FIRST_IMPLICIT_OFFSETS: i16 = 5;
/// The cluster's feature that says that all of it can do KIP-890's second part.
const TRANSACTION_FEATURE: &str = "transaction.version";

/// What [`Producer::init_transactions`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initialized {
    pub identity: ProducerIdEpoch,
    /// The transaction that was kept; it must be completed before another is begun.
    pub ongoing: Option<ProducerIdEpoch>,
}

/// What became of a prepared transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    Committed,
    /// The transaction found was another one than expected.
    Aborted,
    /// None was found: it ended before.
    NothingOngoing,
}

/// A producer id for a producer that is not transactional. Any broker gives them out.
pub(super) async fn producer_id(client: &Client) -> Result<ProducerIdEpoch, ClientError> {
    client
        .retry("get a producer id", client.api_deadline(), async || {
            let connection = match client.connect_any().await {
                Ok(connection) => connection,
                Err(e) => return Attempt::lost(e),
            };
            let version = match connection.version_up_to(ApiKey::InitProducerId, FIRST_TWO_PHASE) {
                Ok(version) => version,
                Err(e) => return Attempt::lost(e),
            };
            let body = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..Default::default() }.into();
            match client.call(&connection, ROLE, "get_producer_id", version, &body).await {
                Ok(ResponseBody::InitProducerId(answer)) => match answer.error_code.ok() {
                    Ok(()) => {
                        Attempt::Done(ProducerIdEpoch { producer_id: answer.producer_id, epoch: answer.producer_epoch })
                    }
                    Err(code) => Attempt::refused(code),
                },
                Ok(_) => Attempt::unexpected(),
                Err(e) => Attempt::lost(e),
            }
        })
        .await
}

/// Adds partitions to the open transaction, for brokers before KIP-890. The machine learns the result here.
pub(super) async fn add_partitions(shared: &Shared, partitions: BTreeSet<TopicPartition>) {
    let (Some(id), Some(identity)) = (&shared.config.transactional_id, shared.machine.borrow().identity()) else {
        return;
    };
    let build = |_: i16| -> RequestBody {
        let topics = by_topic(partitions.iter().map(|tp| (tp, ()))).into_iter().map(|(topic, partitions)| {
            AddPartitionsToTxnTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions.into_iter().map(|(p, ())| p).collect())
        });
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(str_bytes(id.clone()).into())
            .with_v3_and_below_producer_id(identity.producer_id.into())
            .with_v3_and_below_producer_epoch(identity.epoch)
            .with_v3_and_below_topics(topics.collect())
            .into()
    };
    let code = |body: &ResponseBody| match body {
        ResponseBody::AddPartitionsToTxn(answer) => {
            let topics = answer.results_by_topic_v3_and_below.iter();
            let codes = topics.flat_map(|t| t.results_by_partition.iter().map(|p| p.partition_error_code));
            // OPERATION_NOT_ATTEMPTED stands beside the error of another partition.
            let errors = codes.filter(|c| *c != 0).map(ErrorCode::from_code);
            Some(errors.min_by_key(|c| *c == ErrorCode::OPERATION_NOT_ATTEMPTED).unwrap_or_default())
        }
        _ => None,
    };
    let client = &shared.client;
    let added = client
        .retry("add partitions to the transaction", client.api_deadline(), async || {
            let (api, label) = (ApiKey::AddPartitionsToTxn, "add_partitions_to_txn");
            client.call_coordinator(txn_coordinator(id), shared.lane, ROLE, label, api, 3, build, code).await
        })
        .await;
    let mut machine = shared.machine.borrow_mut();
    let Some(txn) = &mut machine.txn else { return };
    match added {
        Ok(_) => txn.partitions_added(partitions),
        Err(e) => {
            txn.adding_failed();
            txn.fail(e.code, e.reason.clone());
            machine.fail_queued(&SendError { outcome: Outcome::Failed, code: e.code, reason: e.reason });
        }
    }
}

fn txn_coordinator(id: &str) -> (CoordinatorType, &str) {
    (CoordinatorType::Transaction, id)
}

impl Shared {
    fn transactional_id(&self, what: &'static str) -> Result<&str, TxnError> {
        let id = self.config.transactional_id.as_deref();
        id.ok_or_else(|| TxnError::misuse(what, "the producer is not transactional"))
    }

    fn with_txn<R>(
        &self,
        what: &'static str,
        f: impl FnOnce(&mut super::transaction::Transaction) -> Result<R, TxnError>,
    ) -> Result<R, TxnError> {
        match &mut self.machine.borrow_mut().txn {
            Some(txn) => f(txn),
            None => Err(TxnError::misuse(what, "the producer is not transactional")),
        }
    }

    /// Remembers why the transaction cannot go on, and says what can be done.
    fn failed(&self, what: &'static str, e: ClientError) -> TxnError {
        // To the coordinator an old epoch always means that another producer has it.
        let fatal = e.code.is_some_and(|c| is_fatal(c) || c == ErrorCode::INVALID_PRODUCER_EPOCH);
        let timed_out = e.code.is_none_or(ErrorCode::retriable);
        let remedy = match (fatal, timed_out) {
            (true, _) => Remedy::Close,
            (false, true) => Remedy::Retry,
            (false, false) => Remedy::Abort,
        };
        if let Some(txn) = &mut self.machine.borrow_mut().txn
            && remedy != Remedy::Retry
        {
            let code = if fatal { Some(ErrorCode::PRODUCER_FENCED) } else { e.code };
            txn.fail(code, e.reason.clone());
        }
        if fatal {
            env::probe::probe(|| ClientProbe::ProducerFatal {
                transactional_id: self.config.transactional_id.clone(),
                code: e.code,
            });
        }
        TxnError { what, outcome: e.outcome, remedy, code: e.code, reason: e.reason }
    }

    /// InitProducerId of a transactional producer.
    async fn init(&self, keep_prepared: bool, bump: Option<ProducerIdEpoch>) -> Result<Initialized, TxnError> {
        const WHAT: &str = "initialise transactions";
        let id = self.transactional_id(WHAT)?;
        let two_phase = self.config.two_phase;
        let timeout_ms = i32::try_from(self.config.txn_timeout.as_millis()).unwrap_or(i32::MAX);
        let build = |_: i16| -> RequestBody {
            InitProducerIdRequest {
                transactional_id: Some(str_bytes(id)),
                transaction_timeout_ms: timeout_ms,
                producer_id: bump.map_or(-1, |b| b.producer_id),
                producer_epoch: bump.map_or(-1, |b| b.epoch),
                enable_2pc: two_phase,
                keep_prepared_txn: keep_prepared,
            }
            .into()
        };
        let code = |body: &ResponseBody| match body {
            ResponseBody::InitProducerId(answer) => Some(answer.error_code),
            _ => None,
        };
        let client = &self.client;
        let coordinator = txn_coordinator(id);
        let (answer, version) = client
            .retry(WHAT, client.api_deadline(), async || {
                let (api, label) = (ApiKey::InitProducerId, "init_transactions");
                // Checked before asking: an older broker would quietly abort what was to be kept.
                let (version, txn_version) = match self.coordinator_versions(id).await {
                    Ok(found) => found,
                    Err(cause) => return cause,
                };
                if (two_phase || keep_prepared) && version < FIRST_TWO_PHASE {
                    return Attempt::Fail(ErrorCode::UNSUPPORTED_VERSION.into());
                }
                let max = FIRST_TWO_PHASE;
                match client.call_coordinator(coordinator, self.lane, ROLE, label, api, max, build, code).await {
                    Attempt::Done(ResponseBody::InitProducerId(answer)) => Attempt::Done((answer, txn_version)),
                    Attempt::Done(_) => Attempt::unexpected(),
                    Attempt::Again(cause) => Attempt::Again(cause),
                    Attempt::Fail(cause) => Attempt::Fail(cause),
                }
            })
            .await
            .map_err(|e| self.failed(WHAT, e))?;
        let identity = ProducerIdEpoch { producer_id: answer.producer_id, epoch: answer.producer_epoch };
        let ongoing = (answer.ongoing_txn_producer_id >= 0).then_some(ProducerIdEpoch {
            producer_id: answer.ongoing_txn_producer_id,
            epoch: answer.ongoing_txn_producer_epoch,
        });
        env::sometimes!(ongoing.is_some(), "a prepared transaction is found again");
        env::probe::probe(|| ClientProbe::ProducerInitialized {
            transactional_id: Some(id.to_owned()),
            producer_id: identity.producer_id,
            producer_epoch: identity.epoch,
        });
        let mut machine = self.machine.borrow_mut();
        machine.set_identity(identity);
        if let Some(txn) = &mut machine.txn {
            txn.initialized(version, ongoing);
        }
        Ok(Initialized { identity, ongoing })
    }

    /// The coordinator's version of InitProducerId, and how transactions work in its cluster.
    async fn coordinator_versions<T>(&self, id: &str) -> Result<(i16, TxnVersion), Attempt<T>> {
        let (kind, key) = txn_coordinator(id);
        let again = |mut cause: crate::client::Cause| {
            cause.outcome = Outcome::Failed;
            match cause.code {
                Some(code) if !code.retriable() => Attempt::Fail(cause),
                _ => Attempt::Again(cause),
            }
        };
        let node = self.client.coordinator(kind, key).await.map_err(again)?;
        let connection = match self.client.connect(node, self.lane).await {
            Ok(connection) => connection,
            Err(e) => {
                self.client.forget_coordinator(kind, key);
                return Err(again(e.into()));
            }
        };
        let version = connection.version_up_to(ApiKey::InitProducerId, i16::MAX).map_err(Attempt::lost)?;
        let bumps = connection.version_up_to(ApiKey::EndTxn, FIRST_BUMPING_END) == Ok(FIRST_BUMPING_END);
        let v2 = bumps && connection.feature(TRANSACTION_FEATURE) >= 2;
        Ok((version, if v2 { TxnVersion::V2 } else { TxnVersion::V1 }))
    }

    async fn wait_idle(&self) {
        loop {
            let progress = self.progress.notified();
            if self.machine.borrow().is_idle() {
                return;
            }
            progress.await;
        }
    }

    /// Tells the coordinator how the transaction ends. All records are done.
    async fn end(&self, commit: bool) -> Result<(), TxnError> {
        let what = if commit { "commit" } else { "abort" };
        let id = self.transactional_id(what)?;
        let tell = self.with_txn(what, |txn| txn.start_end(commit))?;
        if !tell {
            return Ok(());
        }
        let Some(identity) = self.machine.borrow().identity() else {
            return Err(TxnError::misuse(what, "the producer has no identity"));
        };
        let version = self.with_txn(what, |txn| Ok(txn.version))?;
        let max = if version == TxnVersion::V2 { FIRST_BUMPING_END } else { FIRST_BUMPING_END - 1 };
        let build = |_: i16| -> RequestBody {
            EndTxnRequest::default()
                .with_transactional_id(str_bytes(id).into())
                .with_producer_id(identity.producer_id.into())
                .with_producer_epoch(identity.epoch)
                .with_committed(commit)
                .into()
        };
        let code = |body: &ResponseBody| match body {
            ResponseBody::EndTxn(answer) => Some(ErrorCode::from_code(answer.error_code)),
            _ => None,
        };
        let client = &self.client;
        let label = if commit { "end_txn_commit" } else { "end_txn_abort" };
        let ended = client
            .retry(what, client.api_deadline(), async || {
                let (coordinator, api) = (txn_coordinator(id), ApiKey::EndTxn);
                client.call_coordinator(coordinator, self.lane, ROLE, label, api, max, build, code).await
            })
            .await;
        let body = match ended {
            Ok(body) => body,
            Err(e) => {
                let error = self.failed(what, e);
                if error.remedy == Remedy::Abort && error.outcome == Outcome::Failed && commit {
                    self.with_txn(what, |txn| {
                        txn.end_refused();
                        Ok(())
                    })?;
                } else if error.remedy == Remedy::Abort {
                    // An abort that is refused, or a commit that may have been heard before it was refused: this
                    // producer cannot find out any more.
                    return Err(TxnError { remedy: Remedy::Close, ..error });
                }
                return Err(error);
            }
        };
        env::probe::probe(|| ClientProbe::TransactionEnded {
            transactional_id: id.to_owned(),
            producer_id: identity.producer_id,
            producer_epoch: identity.epoch,
            committed: commit,
        });
        let bump = self.with_txn(what, |txn| Ok(txn.ended()))?;
        if let ResponseBody::EndTxn(answer) = body
            && version == TxnVersion::V2
            && answer.producer_id.0 >= 0
        {
            let next = ProducerIdEpoch { producer_id: answer.producer_id.0, epoch: answer.producer_epoch };
            self.machine.borrow_mut().set_identity(next);
        }
        if bump {
            self.with_txn(what, |txn| {
                txn.uninitialized();
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Producer {
    /// Registers the transactional id, fences older producers of it and ends what they left open: aborts it, or, with
    /// `keep_prepared`, keeps it for [`Producer::complete_prepared`] (KIP-939; needs a broker that knows it).
    pub async fn init_transactions(&self, keep_prepared: bool) -> Result<Initialized, TxnError> {
        let shared = &self.0.shared;
        shared.with_txn("initialise transactions", |txn| txn.check_init())?;
        shared.init(keep_prepared, None).await
    }

    pub fn begin(&self) -> Result<(), TxnError> {
        self.0.shared.with_txn("begin", |txn| txn.begin())
    }

    /// Commits offsets of a group as part of the transaction, in the name of one of its members
    /// ([`GroupConsumer::metadata`](crate::GroupConsumer::metadata)) or, given just the group's id, of nobody.
    pub async fn send_offsets(
        &self,
        group: impl Into<GroupMetadata>,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), TxnError> {
        const WHAT: &str = "send offsets";
        let member = group.into();
        let group = member.group_id.as_str();
        let shared = &self.0.shared;
        let id = shared.transactional_id(WHAT)?;
        let version = shared.with_txn(WHAT, |txn| {
            txn.check_open(WHAT)?;
            txn.touched();
            Ok(txn.version)
        })?;
        let Some(identity) = shared.machine.borrow().identity() else {
            return Err(TxnError::misuse(WHAT, "the producer has no identity"));
        };
        let client = &shared.client;
        if version == TxnVersion::V1 {
            let build = |_: i16| -> RequestBody {
                AddOffsetsToTxnRequest::default()
                    .with_transactional_id(str_bytes(id).into())
                    .with_producer_id(identity.producer_id.into())
                    .with_producer_epoch(identity.epoch)
                    .with_group_id(str_bytes(group).into())
                    .into()
            };
            let code = |body: &ResponseBody| match body {
                ResponseBody::AddOffsetsToTxn(answer) => Some(ErrorCode::from_code(answer.error_code)),
                _ => None,
            };
            let added = client.retry(WHAT, client.api_deadline(), async || {
                let (coordinator, api, label) = (txn_coordinator(id), ApiKey::AddOffsetsToTxn, "add_offsets_to_txn");
                client.call_coordinator(coordinator, shared.lane, ROLE, label, api, 4, build, code).await
            });
            added.await.map_err(|e| shared.failed(WHAT, e))?;
        }
        let max = if version == TxnVersion::V2 { FIRST_IMPLICIT_OFFSETS } else { FIRST_IMPLICIT_OFFSETS - 1 };
        let build = |version: i16| -> RequestBody {
            let topics = by_topic(offsets.iter()).into_iter().map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(index, committed)| {
                    let mut p = TxnOffsetCommitRequestPartition::default()
                        .with_partition_index(index)
                        .with_committed_offset(committed.offset)
                        .with_committed_metadata(Some(str_bytes(committed.metadata.clone())));
                    if version >= 2 {
                        p.committed_leader_epoch = committed.leader_epoch;
                    }
                    p
                });
                TxnOffsetCommitRequestTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(partitions.collect())
            });
            let mut request = TxnOffsetCommitRequest::default()
                .with_transactional_id(str_bytes(id).into())
                .with_group_id(str_bytes(group).into())
                .with_producer_id(identity.producer_id.into())
                .with_producer_epoch(identity.epoch)
                .with_topics(topics.collect());
            if version >= 3 {
                request.generation_id = member.generation;
                request.member_id = str_bytes(member.member_id.as_str());
                request.group_instance_id = member.instance_id.as_deref().map(str_bytes);
            }
            request.into()
        };
        let code = |body: &ResponseBody| match body {
            ResponseBody::TxnOffsetCommit(answer) => {
                let mut codes = answer.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
                Some(ErrorCode::from_code(codes.find(|c| *c != 0).unwrap_or(0)))
            }
            _ => None,
        };
        let committed = client.retry(WHAT, client.api_deadline(), async || {
            let (api, label) = (ApiKey::TxnOffsetCommit, "txn_offset_commit");
            let coordinator = (CoordinatorType::Group, group);
            client.call_coordinator(coordinator, shared.lane, ROLE, label, api, max, build, code).await
        });
        committed.await.map(drop).map_err(|e| shared.failed(WHAT, e))
    }

    /// First phase: waits for all records and keeps the transaction open. The result identifies it after a crash.
    pub async fn prepare(&self) -> Result<ProducerIdEpoch, TxnError> {
        const WHAT: &str = "prepare";
        let shared = &self.0.shared;
        shared.with_txn(WHAT, |txn| txn.start_flush(WHAT))?;
        self.flush().await;
        shared.wait_idle().await;
        shared.with_txn(WHAT, |txn| txn.prepared())?;
        self.current().ok_or_else(|| TxnError::misuse(WHAT, "the producer has no identity"))
    }

    /// Waits for all records and commits. `Unknown` means that the transaction may have been committed, or may yet be:
    /// call it again.
    pub async fn commit(&self) -> Result<(), TxnError> {
        let shared = &self.0.shared;
        shared.with_txn("commit", |txn| txn.start_flush("commit"))?;
        self.flush().await;
        shared.wait_idle().await;
        shared.end(true).await
    }

    /// Gives up the records that were not sent, waits for those in flight, and aborts.
    pub async fn abort(&self) -> Result<(), TxnError> {
        let shared = &self.0.shared;
        {
            let mut machine = shared.machine.borrow_mut();
            if let Some(txn) = &mut machine.txn
                && txn.state() == State::Open
            {
                txn.fail(None, "transaction aborted".into());
                let code = txn.failure_code();
                machine.fail_queued(&SendError {
                    outcome: Outcome::Failed,
                    code,
                    reason: "transaction aborted".into(),
                });
            }
        }
        shared.wake.notify_one();
        shared.wait_idle().await;
        // Uninitialized: an abort before was answered, and the bump after it was not.
        if shared.with_txn("abort", |txn| Ok(txn.state()))? != State::Uninitialized {
            shared.end(false).await?;
        }
        self.reinitialise().await
    }

    /// Ends a transaction that [`Producer::init_transactions`] kept: commits it if it is the one expected, else aborts.
    pub async fn complete_prepared(&self, expected: ProducerIdEpoch) -> Result<Completion, TxnError> {
        let shared = &self.0.shared;
        let state = shared.with_txn("complete", |txn| Ok(txn.state()))?;
        match state {
            State::Prepared { kept: Some(kept) } => {
                let commit = kept == expected;
                env::sometimes!(!commit, "an ongoing transaction is not the one that was prepared");
                shared.end(commit).await?;
                Ok(if commit { Completion::Committed } else { Completion::Aborted })
            }
            State::Ending { commit } => {
                shared.end(commit).await?;
                Ok(if commit { Completion::Committed } else { Completion::Aborted })
            }
            State::Ready => Ok(Completion::NothingOngoing),
            _ => Err(TxnError::misuse("complete", format!("the producer is {state:?}"))),
        }
    }

    /// Before KIP-890 an abort does not change the epoch: if sequences are missing, InitProducerId has to.
    async fn reinitialise(&self) -> Result<(), TxnError> {
        let shared = &self.0.shared;
        let state = shared.with_txn("abort", |txn| Ok(txn.state()))?;
        if state == State::Uninitialized {
            env::sometimes!(true, "an epoch is bumped by InitProducerId after an abort");
            shared.init(false, self.current()).await?;
        }
        Ok(())
    }
}
