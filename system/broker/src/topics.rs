//! Topics from decision to open partitions.
//!
//! ```text
//! 1 metadata log: Topic, Partition records             durable: the topic exists
//! 2 directories and empty logs                         durable: names synced
//! 3 metadata log: PartitionChange (directories)        durable: from now on a missing directory is a loss
//! 4 open for requests, creation answered
//! ```
//! After a crash between 1 and 3 the next start does 2 and 3 again. A directory that is missing after 3 held data, and
//! the broker refuses to start rather than serve an empty log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use env::disk;
use env::node::{When, crash_point};
use env::sync::Mutex;
use protocol::{ErrorCode, Uuid};

use crate::context::Context;
use crate::controller::configs;
use crate::controller::proposal::{NewTopic, Outcome, Placement, Proposal};
use crate::failure::BrokerError;
use crate::ids;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE, is_internal};
use crate::join::join_all;

use crate::partition::{Partition, PartitionConfig, TopicPartition};

/// Topic names are at most this long, as in Kafka.
const MAX_NAME: usize = 249;

/// Kafka's rule for the name of a topic.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("topic name is empty")
    } else if name == "." || name == ".." {
        Err("topic name must not be '.' or '..'")
    } else if name.len() > MAX_NAME {
        Err("topic name is longer than 249 characters")
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        Err("topic name has characters other than letters, digits, '.', '_' and '-'")
    } else {
        Ok(())
    }
}

/// Whether this broker does what the setting asks for.
pub fn check_setting(name: &str, value: Option<&str>) -> Result<(), String> {
    match value {
        Some(value) => configs::check(name, value),
        None => Err(format!("{name} has no value")),
    }
}

/// Creates topics, one at a time: creation is rare, and two of the same name must not race.
pub(crate) struct Topics {
    directory_id: Uuid,
    data_dir: PathBuf,
    creating: Mutex<Box<dyn FnMut() -> Uuid>>,
}

impl Topics {
    pub fn new(data_dir: PathBuf, directory_id: Uuid) -> Self {
        Self { directory_id, data_dir, creating: Mutex::new(Box::new(ids::source("broker.topic-id"))) }
    }

    /// Creates the topic unless it is there, and waits until it is open.
    pub async fn ensure(&self, context: &Rc<Context>, name: &str, partitions: i32) -> Result<(), ErrorCode> {
        match self.create(context, name.to_owned(), partitions, BTreeMap::new()).await {
            Ok(_) | Err(ErrorCode::TOPIC_ALREADY_EXISTS) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates the topic; once this returns it can be written to. The work goes on if the caller is dropped.
    pub async fn create(
        &self,
        context: &Rc<Context>,
        name: String,
        partitions: i32,
        configs: BTreeMap<String, String>,
    ) -> Result<Uuid, ErrorCode> {
        check_name(&name).map_err(|_| ErrorCode::INVALID_TOPIC_EXCEPTION)?;
        let context = Rc::clone(context);
        let work = env::task::spawn(async move {
            let mut fresh_id = context.topics.creating.lock().await;
            let topic_id = (*fresh_id)();
            let place = Placement::Count { partitions, replication_factor: -1 };
            let topics = vec![NewTopic { name: name.clone(), topic_id, place, configs }];
            let proposal = Proposal::CreateTopics { topics, validate_only: false };
            if let Outcome::CreatedTopics(created) = context.metadata.propose(proposal).await? {
                created.into_iter().try_for_each(|c| c.map(drop)).map_err(|refusal| refusal.error)?;
            }
            let indexes = (0..partitions).map(|p| (name.clone(), p)).collect();
            match open_partitions(&context, indexes).await {
                Ok(()) => Ok(topic_id),
                Err(error) => {
                    context.failure.report(error);
                    Err(ErrorCode::KAFKA_STORAGE_ERROR)
                }
            }
        });
        work.await.unwrap_or(Err(ErrorCode::BROKER_NOT_AVAILABLE))
    }

    fn dir(&self, topic: &str, partition: i32) -> PathBuf {
        self.data_dir.join(format!("{topic}-{partition}"))
    }
}

/// Opens these partitions, which the metadata log gives to this broker, creating those that were never open; coordinators
/// of internal topics take them over.
pub(crate) async fn open_partitions(context: &Rc<Context>, which: Vec<(String, i32)>) -> Result<(), BrokerError> {
    let me = context.config.node_id;
    let mut opening = Vec::new();
    let mut unplaced = Vec::new();
    for (topic, partition) in which {
        let found = context.metadata.with(|image| {
            let state = image.topic(&topic)?;
            let p = state.partitions.get(&partition)?;
            Some((state.topic_id, p.leader_epoch, p.is_placed(me)))
        });
        let Some((topic_id, leader_epoch, placed)) = found else { continue };
        let dir = context.topics.dir(&topic, partition);
        if !placed {
            unplaced.push((topic_id, partition));
        }
        opening.push(async move {
            let missing = |e| BrokerError::storage(dir.display(), e);
            if placed && !disk::exists(&dir).await.map_err(missing)? {
                let reason = "the directory is gone, and with it acknowledged records";
                return Err(BrokerError::storage(dir.display(), reason));
            }
            let id = TopicPartition { topic, topic_id, partition };
            let config = PartitionConfig::of(&context.config);
            Partition::open(id, dir, config, leader_epoch, context.failure.clone()).await
        });
    }
    let mut open = Vec::new();
    for partition in join_all(opening).await {
        open.push(partition?);
    }
    if !unplaced.is_empty() {
        crash_point("broker", "topic.place", None, When::Before).await;
        let data_dir = &context.topics.data_dir;
        disk::sync_dir(data_dir).await.map_err(|e| BrokerError::storage(data_dir.display(), e))?;
        let directory = context.topics.directory_id;
        let place = Proposal::Place { broker_id: me, directory, partitions: unplaced };
        match context.metadata.propose(place).await {
            Ok(Outcome::Placed) => {}
            Ok(other) => return Err(BrokerError::storage("the metadata log", format!("{other:?} for a placement"))),
            Err(error) => return Err(BrokerError::storage("the metadata log", error)),
        }
        crash_point("broker", "topic.place", None, When::After).await;
    }
    lead(context, open).await
}

/// Opens partitions for requests. Offsets come before transactions: finishing a transaction decides offsets.
async fn lead(context: &Rc<Context>, open: Vec<Partition>) -> Result<(), BrokerError> {
    let of = |topic: &'static str| open.iter().filter(move |p| p.id().topic == topic).cloned();
    for partition in of(CONSUMER_OFFSETS) {
        context.groups.lead(partition).await?;
    }
    for partition in open.iter().filter(|p| p.id().topic != TRANSACTION_STATE).cloned() {
        register(context, partition);
    }
    for partition in of(TRANSACTION_STATE) {
        context.txn.lead(partition.clone()).await?;
        register(context, partition);
    }
    Ok(())
}

fn register(context: &Context, partition: Partition) {
    let (topic, index) = (partition.id().topic.clone(), partition.id().partition);
    context.partitions.borrow_mut().entry(topic).or_default().insert(index, partition);
}

/// Whether clients may create a topic of this name.
pub(crate) fn may_create(name: &str) -> bool {
    !is_internal(name) && name != "__cluster_metadata"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
        for good in ["a", "a.b_c-D9", "__x", &"n".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"n".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
