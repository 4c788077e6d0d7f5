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

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use env::disk;
use env::node::{When, crash_point};
use env::sync::Mutex;
use protocol::messages::CreateTopicsRequest;
use protocol::messages::create_topics_request::CreatableTopic;
use protocol::{ErrorCode, ResponseBody, Uuid, topic_name};

use crate::context::Context;
use crate::failure::BrokerError;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE, is_internal};
use crate::join::join_all;

use crate::partition::{Partition, PartitionConfig, TopicPartition};

/// Topic names are at most this long, as in Kafka.
const MAX_NAME: usize = 249;
/// How long a broker waits for a topic that it creates by itself.
const CREATION_MS: i32 = 10_000;
const CREATE_TOPICS: i16 = 7;

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

/// Creates topics, and opens what of them is this broker's.
pub(crate) struct Topics {
    directory_id: Uuid,
    data_dir: PathBuf,
    /// One topic is opened at a time: opening is rare, and two of the same name must not race.
    opening: Mutex<()>,
}

impl Topics {
    pub fn new(data_dir: PathBuf, directory_id: Uuid) -> Self {
        Self { directory_id, data_dir, opening: Mutex::new(()) }
    }

    /// Creates the topic unless it is there, and waits until this broker acts by it. -1: as many partitions as the
    /// controller's default.
    pub async fn ensure(&self, context: &Rc<Context>, name: &str, partitions: i32) -> Result<(), ErrorCode> {
        check_name(name).map_err(|_| ErrorCode::INVALID_TOPIC_EXCEPTION)?;
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(CREATION_MS);
        let answer = context.controller.forward(CREATE_TOPICS, request.into()).await;
        let Some(ResponseBody::CreateTopics(answer)) = answer else { return Err(ErrorCode::UNKNOWN_SERVER_ERROR) };
        for topic in answer.topics {
            match ErrorCode::from_code(topic.error_code) {
                ErrorCode::NONE | ErrorCode::TOPIC_ALREADY_EXISTS => {}
                error => return Err(error),
            }
        }
        self.opened(context, vec![name.to_owned()]).await
    }

    /// Waits until the topics, just created, can be written to as far as this broker leads them. The work goes on if the
    /// caller is dropped.
    pub async fn opened(&self, context: &Rc<Context>, names: Vec<String>) -> Result<(), ErrorCode> {
        let context = Rc::clone(context);
        let work = env::task::spawn(async move {
            let known = async {
                loop {
                    let changed = context.metadata.changed();
                    if context.metadata.with(|image| names.iter().all(|n| image.names.contains_key(n))) {
                        return;
                    }
                    changed.await;
                }
            };
            let limit = Duration::from_millis(CREATION_MS as u64);
            env::time::timeout(limit, known).await.map_err(|env::time::Elapsed| ErrorCode::LEADER_NOT_AVAILABLE)?;
            let _opening = context.topics.opening.lock().await;
            let me = context.config.node_id;
            let mine = context.metadata.with(|image| {
                let of_topic = |name: &String| {
                    let partitions = image.topic(name).into_iter().flat_map(|t| &t.partitions);
                    let mine = partitions.filter(|(_, p)| p.replicas.contains(&me));
                    mine.map(|(index, _)| (name.clone(), *index)).collect::<Vec<_>>()
                };
                names.iter().flat_map(of_topic).collect::<Vec<_>>()
            });
            let closed = mine.into_iter().filter(|(name, index)| context.partition(name, *index).is_err()).collect();
            match open_partitions(&context, closed).await {
                Ok(()) => Ok(()),
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
        // Until the controller knows, a directory that is lost would not be missed.
        while let Err(error) = context.controller.place(directory, &unplaced).await {
            tracing::info!(%error, "the controller does not know yet where partitions are kept");
            let later = matches!(
                error,
                ErrorCode::REQUEST_TIMED_OUT | ErrorCode::NOT_CONTROLLER | ErrorCode::STALE_BROKER_EPOCH
            );
            if later {
                env::time::sleep(Duration::from_millis(100)).await;
            } else {
                return Err(BrokerError::storage("the metadata log", error));
            }
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
