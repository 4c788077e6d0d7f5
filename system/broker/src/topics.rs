//! Topics from decision to open partitions.
//!
//! ```text
//! 1 metadata log: Topic, Partition records             durable: the topic exists
//! 2 directories and empty logs (`replication`)         durable: names synced
//! 3 metadata log: PartitionChange (directories)        durable: from now on a missing directory is a loss
//! 4 open for requests, creation answered
//! ```
//! After a crash between 1 and 3 the next start does 2 and 3 again. A directory that is missing after 3 held data, and
//! the broker refuses to start rather than serve an empty log.

use std::rc::Rc;
use std::time::Duration;

use protocol::messages::CreateTopicsRequest;
use protocol::messages::create_topics_request::CreatableTopic;
use protocol::{ErrorCode, ResponseBody, topic_name};

use crate::context::Context;
use crate::internal_topics::is_internal;

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

/// Has topics created.
pub(crate) struct Topics;

impl Topics {
    /// Creates the topic unless it is there, and waits until this broker acts by it. -1: as many partitions, or replicas,
    /// as the controller's default.
    pub async fn ensure(
        &self,
        context: &Rc<Context>,
        name: &str,
        partitions: i32,
        replicas: i16,
    ) -> Result<(), ErrorCode> {
        check_name(name).map_err(|_| ErrorCode::INVALID_TOPIC_EXCEPTION)?;
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas);
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
            let ids: Vec<_> =
                context.metadata.with(|image| names.iter().filter_map(|n| image.names.get(n).copied()).collect());
            for id in ids {
                context.replicas.settled(&context, id).await?;
            }
            Ok(())
        });
        work.await.unwrap_or(Err(ErrorCode::BROKER_NOT_AVAILABLE))
    }
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
